"""The documentation as pages of the service, rendered from the same Markdown files that the repository shows."""

import re
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup
from starlette.responses import HTMLResponse

from app.api.readable import ReadableRouter
from app.domain.errors import NotFound
from app.web.rendering import page

router = ReadableRouter(include_in_schema=False)

CHAPTERS = {
    "quickstart": "Quickstart",
    "tasks": "How to …",
    "http-api": "HTTP contract",
    "plugins": "Your own architectures",
    "remotes": "Other machines",
    "compatibility": "What stays as it is",
    "operations": "Running it for real",
    "verification": "How a conversion is judged",
    "ledger": "The weight ledger",
    "templates": "Templates",
    "architecture": "How it is built",
    "conversion-matrix": "Conversion matrix",
    "field-cases": "Field cases",
    "registry-sample": "Registry sample",
    "hostile-inputs": "Hostile inputs",
}
"""Page name to title, in the order of reading. A page whose file is not there is left out."""
LINK = re.compile(r"(?:\.\./)?(?:docs/)?([\w-]+)\.md(#.*)?")


@router.get("/guide")
async def guide_page() -> HTMLResponse:
    return await chapter_page(next(iter(_chapters())))


@router.get("/guide/{name}")
async def chapter_page(name: str) -> HTMLResponse:
    chapters = _chapters()
    if name not in chapters:
        raise NotFound(f"The guide has no page {name[:100]!r}.", hint=f"It has: {', '.join(chapters)}.")
    return page("guide.html", chapters=chapters, name=name, body=_rendered(name))


@cache
def _chapters() -> dict[str, str]:
    return {name: title for name, title in CHAPTERS.items() if _folder().joinpath(f"{name}.md").is_file()}


@cache
def _folder() -> Traversable:
    """Where the Markdown lies: inside an installed wheel, or beside the package in a checkout."""
    installed = files("app.web").joinpath("guide")
    return installed if installed.is_dir() else Path(__file__).parent.parent.parent / "docs"


@cache
def _rendered(name: str) -> Markup:
    """The page as HTML. Raw HTML in it is escaped; links between pages lead to pages of the guide."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(_folder().joinpath(f"{name}.md").read_text(encoding="utf-8"))
    for position, token in enumerate(tokens):
        if token.type == "heading_open":
            token.attrSet("id", _anchor(tokens[position + 1].content))
        for inner in token.children or ():
            _relink(inner)
    return Markup(markdown.renderer.render(tokens, markdown.options, {}))


def _relink(token: Token) -> None:
    match = LINK.fullmatch(str(token.attrGet("href") or "")) if token.type == "link_open" else None
    if match is not None and match[1] in _chapters():
        token.attrSet("href", f"/guide/{match[1]}{match[2] or ''}")


def _anchor(heading: str) -> str:
    """A heading's fragment as repositories show it: "The gate" is #the-gate."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
