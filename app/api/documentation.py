"""The documentation page, served whole from this process: it works where there is no internet."""

from importlib.resources import files

from fastapi import FastAPI
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

from app.api.readable import ReadableRouter

ASSETS = "/docs/assets"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Swagger UI styles its elements one by one; scripts come from files alone."""
PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Recast API</title>
<link rel="stylesheet" href="{ASSETS}/swagger-ui.css">
<link rel="stylesheet" href="/docs/page.css">
<link rel="icon" href="/favicon.ico">
</head>
<body>
<nav aria-label="Main"><a href="/">Recast</a> <a href="/conversions">Conversions</a>
<a href="/guide/http-api">HTTP contract</a> <a href="/problems">Error codes</a>
<a href="/openapi.json">openapi.json</a></nav>
<main id="swagger-ui"></main>
<script src="{ASSETS}/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
START = """SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: false, // its links stand within buttons, which screen readers cannot tell apart
  displayRequestDuration: true,
  onComplete: () => document.getElementById("servers")?.setAttribute("aria-label", "Server"),
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset],
});
"""

STYLE = """
nav { display: flex; flex-wrap: wrap; gap: 6px 20px; max-width: 1460px; margin: 0 auto; padding: 14px 20px 0; }
nav { font: 15px system-ui, sans-serif; }
nav a { color: #16191d; text-decoration: none; } nav a:first-child { color: #2563c9; font-weight: 700; }
.swagger-ui .info { margin: 24px 0 12px; } .swagger-ui .scheme-container { padding: 12px 0; }
.swagger-ui a, .swagger-ui .info a, .swagger-ui .info .base-url { color: #1f56b0; }
.swagger-ui .info .title small, .swagger-ui .info .title small.version-stamp { background: #4a5361; }
.swagger-ui .btn.authorize { color: #0f6f3f; border-color: #0f6f3f; } .swagger-ui .btn.authorize svg { fill: #0f6f3f; }
.swagger-ui .opblock .opblock-summary-description, .swagger-ui .opblock-tag small { color: #3b4151; }
.swagger-ui .opblock.opblock-get .opblock-summary-method { background: #1f5fae; }
.swagger-ui .opblock.opblock-post .opblock-summary-method { background: #14713f; }
.swagger-ui .opblock.opblock-put .opblock-summary-method { background: #8a5200; }
.swagger-ui .opblock.opblock-delete .opblock-summary-method { background: #b3261e; }
.swagger-ui .opblock.opblock-patch .opblock-summary-method { background: #0f6b61; }
.swagger-ui .opblock.opblock-head .opblock-summary-method { background: #6a1bbf; }
.swagger-ui .json-schema-2020-12-expand-deep-button { color: #4a5361; }
@media (max-width: 640px) {
  .swagger-ui .opblock-tag { display: block; }
  .swagger-ui .opblock-tag small { display: block; padding: 0; }
}
"""
"""Contrasts that can be read, a way back, and room on phones."""

router = ReadableRouter(include_in_schema=False)


@router.get("/docs")
async def documentation_page() -> HTMLResponse:
    return HTMLResponse(PAGE, headers={"Content-Security-Policy": POLICY})


@router.get("/docs/start.js")
async def documentation_start() -> Response:
    return Response(START, media_type="text/javascript")


@router.get("/docs/page.css")
async def documentation_style() -> Response:
    return Response(STYLE, media_type="text/css")


def install_documentation(app: FastAPI) -> None:
    """Add /docs and the files it needs, which the package fastapi-offline carries."""
    app.mount(ASSETS, StaticFiles(directory=str(files("fastapi_offline").joinpath("static"))), name="docs-assets")
    app.include_router(router)
