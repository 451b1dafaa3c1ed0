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
from starlette.responses import HTMLResponse, Response

from app.api.readable import ReadableRouter
from app.domain.errors import NotFound
from app.web.rendering import page

router = ReadableRouter(include_in_schema=False)

CONTENTS = {
    "Begin": {"quickstart": "Quickstart", "tasks": "How to …"},
    "Concepts": {
        "concepts": "In four pictures",
        "verification": "How a conversion is judged",
        "ledger": "The weight ledger",
        "templates": "Templates",
        "checkpoints": "How files are read",
        "architecture": "How it is built",
    },
    "Reference": {
        "targets": "Targets",
        "http-api": "HTTP contract",
        "/docs": "Every operation",
        "/problems": "Error codes",
        "recipes": "Other heads without code",
        "plugins": "Your own architectures",
        "remotes": "Other machines",
        "compatibility": "What stays as it is",
    },
    "Operation": {
        "operations": "Running it for real",
        "scaling": "How far it goes",
        "SECURITY": "What is trusted",
    },
    "Evidence": {
        "conversion-matrix": "Conversion matrix",
        "field-cases": "Field cases",
        "registry-sample": "Registry sample",
        "hostile-inputs": "Hostile inputs",
    },
}
"""Groups of chapters, by name (or the path of another page of the service) and title, in the order of reading.

A chapter whose file is not there is left out.
"""
PICTURE = re.compile(r"images/([\w-]+\.(?:svg|png))")
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
    return page(
        "guide_search.html",
        contents=_contents(),
        chapters=_chapters(),
        name="",
        query=query,
        found=_found(tuple(words)),
    )


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
                texts.append("".join(inner.content for inner in token.children or (token,)))
        sections += [Section(name, anchor, heading, " ".join(texts))] if heading else []
    return tuple(sections)


@router.get("/guide/{name}")
async def chapter_page(name: str) -> HTMLResponse:
    chapters = _chapters()
    if name not in chapters:
        raise NotFound(f"The guide has no page {name[:100]!r}.", hint=f"It has: {', '.join(chapters)}.")
    return page("guide.html", contents=_contents(), chapters=chapters, name=name, query="", body=_rendered(name))


@router.get("/guide/images/{picture}")
async def guide_picture(picture: str) -> Response:
    """A drawing or a screenshot of a chapter."""
    file = _folder().joinpath("images", picture)
    if PICTURE.fullmatch(f"images/{picture}") is None or not file.is_file():
        raise NotFound(f"The guide has no picture {picture[:100]!r}.")
    kind = "image/svg+xml" if picture.endswith(".svg") else "image/png"
    headers = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
    return Response(file.read_bytes(), media_type=kind, headers=headers)


@cache
def _chapters() -> dict[str, str]:
    """Name to title."""
    named = ((name, title) for group in CONTENTS.values() for name, title in group.items())
    return {name: title for name, title in named if _file(name).is_file()}


@cache
def _contents() -> dict[str, dict[str, str]]:
    """Group to path and title."""
    chapters = _chapters()
    shown = {
        group: {
            name if name.startswith("/") else f"/guide/{name}": title
            for name, title in entries.items()
            if name.startswith("/") or name in chapters
        }
        for group, entries in CONTENTS.items()
    }
    return {group: entries for group, entries in shown.items() if entries}


@cache
def _folder() -> Traversable:
    """Where the Markdown lies: inside an installed wheel, or beside the package in a checkout."""
    installed = files("app.web").joinpath("guide")
    return installed if installed.is_dir() else Path(__file__).parent.parent.parent / "docs"


def _file(name: str) -> Traversable:
    """Where a chapter's Markdown is, or would be; one of them lies above the others in a checkout."""
    file = _folder().joinpath(f"{name}.md")
    return file if file.is_file() else Path(__file__).parent.parent.parent / f"{name}.md"


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
    return MARKDOWN.parse(_file(name).read_text(encoding="utf-8"))


def _relink(token: Token) -> None:
    picture = PICTURE.fullmatch(str(token.attrGet("src") or "")) if token.type == "image" else None
    if picture is not None:
        token.attrSet("src", f"/guide/images/{picture[1]}")
    match = LINK.fullmatch(str(token.attrGet("href") or "")) if token.type == "link_open" else None
    if match is not None and match[1] in _chapters():
        token.attrSet("href", f"/guide/{match[1]}{match[2] or ''}")


def _anchor(heading: str) -> str:
    """A heading's fragment as repositories show it: "The gate" is #the-gate."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
