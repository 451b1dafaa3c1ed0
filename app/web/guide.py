"""The documentation as pages of the service, rendered from the same Markdown files that the repository shows."""

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated

from fastapi import Query
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
    "targets": "Targets",
    "recipes": "Other heads without code",
    "plugins": "Your own architectures",
    "remotes": "Other machines",
    "compatibility": "What stays as it is",
    "operations": "Running it for real",
    "scaling": "How far it goes",
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
MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")
LINK = re.compile(r"(?:\.\./)?(?:docs/)?([\w-]+)\.md(#.*)?")


MOST_FOUND = 30
SNIPPET = 160
"""Characters shown of a section that was found, on each side of the first word."""


@dataclass(frozen=True)
class Section:
    """What stands under one heading of a chapter, as text."""

    chapter: str
    anchor: str
    heading: str
    text: str


@dataclass(frozen=True)
class FoundSection:
    """A section with the words that were looked for; ``before``, ``word`` and ``after`` are a piece of its text."""

    section: Section
    before: str
    word: str
    after: str


@router.get("/guide")
async def guide_page(query: Annotated[str, Query(max_length=200)] = "") -> HTMLResponse:
    """The first chapter, or the sections that hold every word of the query."""
    words = query.casefold().split()
    if not words:
        return await chapter_page(next(iter(_chapters())))
    return page("guide_search.html", chapters=_chapters(), name="", query=query, found=_found(tuple(words)))


def _found(words: tuple[str, ...]) -> list[FoundSection]:
    """Those with a word in their heading first, then in the order of reading."""
    found = []
    for section in _sections():
        heading, text = section.heading.casefold(), section.text.casefold()
        if all(word in heading or word in text for word in words):
            place = next((text.index(word) for word in words if word in text), 0)
            length = next((len(word) for word in words if word in text), 0)
            whole = section.text
            piece = FoundSection(
                section,
                whole[max(0, place - SNIPPET) : place],
                whole[place : place + length],
                whole[place + length : place + length + SNIPPET],
            )
            found.append((sum(word in heading for word in words), piece))
    found.sort(key=lambda pair: -pair[0])
    return [piece for _, piece in found[:MOST_FOUND]]


@cache
def _sections() -> tuple[Section, ...]:
    sections = []
    for name in _chapters():
        heading, anchor, texts = "", "", list[str]()
        for position, token in enumerate(tokens := _tokens(name)):
            if token.type == "heading_open":
                sections += [Section(name, anchor, heading, " ".join(texts))] if heading else []
                heading, texts = tokens[position + 1].content, []
                anchor = _anchor(heading)
            elif token.type in ("inline", "fence", "code_block") and tokens[position - 1].type != "heading_open":
                texts.append(token.content)
        sections += [Section(name, anchor, heading, " ".join(texts))] if heading else []
    return tuple(sections)


@router.get("/guide/{name}")
async def chapter_page(name: str) -> HTMLResponse:
    chapters = _chapters()
    if name not in chapters:
        raise NotFound(f"The guide has no page {name[:100]!r}.", hint=f"It has: {', '.join(chapters)}.")
    return page("guide.html", chapters=chapters, name=name, query="", body=_rendered(name))


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
    tokens = _tokens(name)
    for position, token in enumerate(tokens):
        if token.type == "heading_open":
            token.attrSet("id", _anchor(tokens[position + 1].content))
        for inner in token.children or ():
            _relink(inner)
    return Markup(MARKDOWN.renderer.render(tokens, MARKDOWN.options, {}))


def _tokens(name: str) -> list[Token]:
    return MARKDOWN.parse(_folder().joinpath(f"{name}.md").read_text(encoding="utf-8"))


def _relink(token: Token) -> None:
    match = LINK.fullmatch(str(token.attrGet("href") or "")) if token.type == "link_open" else None
    if match is not None and match[1] in _chapters():
        token.attrSet("href", f"/guide/{match[1]}{match[2] or ''}")


def _anchor(heading: str) -> str:
    """A heading's fragment as repositories show it: "The gate" is #the-gate."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
