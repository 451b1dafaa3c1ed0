"""Names of files that came from a client, made fit to be stored, shown and sent back in a header."""

import unicodedata
from typing import Literal
from urllib.parse import quote

LONGEST = 200
"""Characters kept of a client's file name; file systems allow 255 bytes."""


def safe_filename(told: str | None) -> str | None:
    """The last path component without control, format (bidi) and surrogate characters; None if nothing is left."""
    if told is None:
        return None
    last = told.replace("\\", "/").rsplit("/", 1)[-1]
    kept = "".join(character for character in last if unicodedata.category(character)[0] != "C").strip(" .")
    return kept[-LONGEST:] or None


def content_disposition(filename: str, kind: Literal["attachment", "inline"] = "attachment") -> str:
    """The header (RFC 6266): a plain name for old clients, and the true one in UTF-8 where they differ.

    ``inline`` lets a browser show the content instead of saving it.
    """
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\%' else "_" for c in filename)
    if plain == filename:
        return f'{kind}; filename="{filename}"'
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"
