"""Text that JSON, PostgreSQL and HTTP can all carry, whoever wrote it."""

import re
from collections.abc import Sequence
from typing import Any

LONGEST_DETAIL = 4_000
"""Characters of one text member of a problem; what is longer helps nobody who reads it."""
ELLIPSIS = "…"
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
"""PostgreSQL holds no NUL in a text, and a lone surrogate has no UTF-8."""
REPLACEMENT = "\ufffd"


def message_of(error: BaseException, longest: int = 600) -> str:
    """The beginning of an error's message, enough to act on; its type where it has none."""
    text = str(error).strip() or type(error).__name__
    return text if len(text) <= longest else text[:longest] + " …"


def listed(names: Sequence[str], most: int) -> str:
    """The first ``most`` of them, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def storable(text: str, longest: int | None = None) -> str:
    """The text with NULs and lone surrogates replaced, cut to ``longest`` characters."""
    if longest is not None and len(text) > longest:
        text = text[: longest - 1] + ELLIPSIS
    return UNSTORABLE.sub(REPLACEMENT, text)


def storable_json(value: Any, longest: int | None = None) -> Any:
    """A JSON value with every text in it made ``storable``, the names of members too."""
    if isinstance(value, str):
        return storable(value, longest)
    if isinstance(value, dict):
        return {storable(str(name), longest): storable_json(member, longest) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [storable_json(item, longest) for item in value]
    return value
