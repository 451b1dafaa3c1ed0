"""Names and labels that clients give to conversions and checkpoints, to find them again."""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from fastapi import Query
from pydantic import Field

from app.domain.errors import InvalidRequest

MAX_LABELS = 32
KEY = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?", re.ASCII)
MAX_VALUE = 200
MAX_NAME = 200
_PRINTABLE = re.compile("[^\x00-\x1f\x7f-\x9f\ud800-\udfff]*")

Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME, pattern="^[^\\x00-\\x1f\\x7f]+$")]
WRITTEN = r"^[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?:[^\x00-\x1f\x7f-\x9f]{0,200}$"
"""How a query says a label; what is written otherwise is refused in words by ``labels_of``."""
LabelQuery = Annotated[
    list[Annotated[str, Field(json_schema_extra={"pattern": WRITTEN})]] | None,
    Query(alias="label", max_length=MAX_LABELS, description="`key:value`; several times for several pairs"),
]


def labels_of(pairs: Iterable[str]) -> dict[str, str]:
    """Pairs written as ``key:value``. Raises InvalidRequest."""
    told: dict[str, str] = {}
    for pair in pairs:
        key, colon, value = pair.partition(":")
        if not colon:
            raise InvalidRequest(f"A label is written key:value, not {pair[:100]!r}.")
        told[key] = value
    return checked_labels(told)


def checked_labels(told: Mapping[Any, Any]) -> dict[str, str]:
    """Raises InvalidRequest for pairs that are too many, too long, or not made of text."""
    if len(told) > MAX_LABELS:
        raise InvalidRequest(f"{len(told)} labels are too many; at most {MAX_LABELS} are kept.")
    for key, value in told.items():
        if not isinstance(key, str) or not KEY.fullmatch(key):
            raise InvalidRequest(
                f"{str(key)[:100]!r} cannot be a label.",
                hint="A label has 1 to 63 letters, digits, dots, slashes, hyphens or underscores.",
            )
        if not isinstance(value, str) or len(value) > MAX_VALUE or not _PRINTABLE.fullmatch(value):
            raise InvalidRequest(f"The value of label {key!r} must be a text of at most {MAX_VALUE} characters.")
    return dict(told)


def checked_name(told: Any) -> str | None:
    """Raises InvalidRequest."""
    if told is None:
        return None
    if not isinstance(told, str) or not 0 < len(told) <= MAX_NAME or not _PRINTABLE.fullmatch(told):
        raise InvalidRequest(f"name must be a text of 1 to {MAX_NAME} characters.")
    return told
