"""The documentation page, served whole from this process: it works where there is no internet."""

from importlib.resources import files

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from app.api.readable import ReadableRouter

ASSETS = "/docs/assets"

router = ReadableRouter(include_in_schema=False)


@router.get("/docs")
async def documentation_page() -> HTMLResponse:
    return get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="Recast API",
        swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{ASSETS}/swagger-ui.css",
        swagger_favicon_url=f"{ASSETS}/favicon.png",
    )


def install_documentation(app: FastAPI) -> None:
    """Add /docs and the files it needs, which the package fastapi-offline carries."""
    app.mount(ASSETS, StaticFiles(directory=str(files("fastapi_offline").joinpath("static"))), name="docs-assets")
    app.include_router(router)
