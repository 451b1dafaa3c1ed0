"""The graph of an ONNX artifact in Netron, whose files come from its own package and are served as they are.

But for its page, which as it stands stops working half a year after its release, asks another host where the reader is,
and tells a third one what is looked at. Here it has no date and no version, consent is given, and no request may leave
the service.
"""

import re
from functools import cache
from importlib.resources import files
from typing import Annotated
from urllib.parse import quote

from fastapi import FastAPI, Query, Request
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from app.api.conversion_files import get_graph
from app.api.conversions import ConversionId
from app.api.principals import Acting
from app.api.readable import ReadableRouter
from app.api.service import ServiceDependency

PATH = "/graph"
POLICY = (
    "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Set-Cookie": f"consent=given; Path={PATH}/; SameSite=Strict; Max-Age=86400",
}
"""The cookie is Netron's own, and says that nothing needs to be asked; its script must be able to read it."""
STYLE = re.compile(r"<style>\n?(.*?)</style>", re.DOTALL)
STYLE_ATTRIBUTE = re.compile(r'\bstyle="([^"]*)"')
AWAY = re.compile(r'href="https://[^"]*" target="blank_"')
"""Links to other hosts, some of them without a word; they lead to the guide instead."""
VERSION = re.compile(r'<meta name="version" content="[^"]*">')
DATE = re.compile(r'<meta name="date" content="[^"]*">\n?')
POLICY_WITHIN = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>\n?')

router = ReadableRouter(prefix=PATH, include_in_schema=False)


@router.get("/")
async def viewer_page(
    url: Annotated[str, Query(pattern=rf"^{PATH}/cnv_[0-9a-f]{{32}}\.onnx$")],
    identifier: Annotated[str, Query(max_length=300)],
    acting: Acting,
) -> HTMLResponse:
    """Netron itself, which reads in its address what to show: nothing but a conversion's graph."""
    del url, identifier, acting  # what is admitted; Netron reads them
    return HTMLResponse(_page_and_style()[0], headers=HEADERS)


@router.get("/{conversion_id}.onnx")
async def viewed_graph(
    conversion_id: ConversionId,
    request: Request,
    service: ServiceDependency,
    cb: Annotated[str, Query(max_length=20, description="What Netron appends so that no cache answers")] = "",
) -> Response:
    del cb
    return await get_graph(conversion_id, request, service)


@router.get("/page.css")
async def viewer_style() -> Response:
    return Response(_page_and_style()[1], media_type="text/css")


def viewer_path(conversion_id: str, architecture: str) -> str:
    """Where the graph of a conversion is seen."""
    name = quote(f"{architecture.rpartition('/')[2]}.onnx")
    return f"{PATH}/?url={PATH}/{conversion_id}.onnx&identifier={name}"


class _ViewerFiles(StaticFiles):
    """Netron's files with the page's policy: a worker obeys that of its own script."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        answer = await super().get_response(path, scope)
        answer.headers["Content-Security-Policy"] = POLICY
        return answer


def install_graph_viewer(app: FastAPI) -> None:
    """Add the viewer and the files that it loads."""
    app.include_router(router)
    app.mount(PATH, _ViewerFiles(directory=str(files("netron"))), name="graph-viewer")


@cache
def _page_and_style() -> tuple[str, str]:
    """Netron's page without what it must not do, and the style that stood within it."""
    page = files("netron").joinpath("index.html").read_text(encoding="utf-8")
    style = STYLE.search(page)
    assert style is not None
    rewritten = STYLE.sub('<link rel="stylesheet" type="text/css" href="page.css">', page)
    rewritten = POLICY_WITHIN.sub("", DATE.sub("", VERSION.sub('<meta name="version" content="0.0.0">', rewritten)))
    rewritten = AWAY.sub('href="/guide" aria-label="The guide"', rewritten.replace("javascript:void(0)", "#"))
    attributes = sorted(set(STYLE_ATTRIBUTE.findall(rewritten)))
    rewritten = STYLE_ATTRIBUTE.sub(lambda found: f'data-style="{attributes.index(found[1])}"', rewritten)
    rules = [f'[data-style="{place}"] {{ {rule} }}' for place, rule in enumerate(attributes)]
    return rewritten, "\n".join([style[1], *rules])
