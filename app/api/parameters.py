"""What every operation does with its query parameters, and the types that several of them share."""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from pydantic import AwareDatetime, BeforeValidator

from app.domain.errors import InvalidRequest

SHOWN = 100
"""Characters of a name that an error repeats."""
RFC_3339 = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})", re.ASCII)


async def refuse_unknown_parameters(request: Request) -> None:
    """Raises InvalidRequest for a parameter that the operation does not have: a filter must not be ignored silently."""
    dependant = getattr(request.scope.get("route"), "dependant", None)
    if dependant is None or not request.url.query:
        return
    known = set(_names(dependant))
    unknown = sorted(name[:SHOWN] for name in request.query_params.keys() - known)
    if unknown:
        raise InvalidRequest(
            f"Unknown query parameters: {', '.join(unknown[:10])}.",
            hint=f"Known ones: {', '.join(sorted(known)) or 'none'}.",
            unknown_parameters=unknown,
        )


def _names(dependant: Dependant) -> Iterator[str]:
    """Query parameters of an operation and of all that it depends on."""
    yield from (field.alias for field in dependant.query_params)
    for inner in dependant.dependencies:
        yield from _names(inner)


def link_next(request: Request, response: Response, cursor: str | None) -> None:
    """Tell the path of the next page of a list in a header too (RFC 8288)."""
    if cursor is not None:
        query = urlencode(
            [(k, v) for k, v in request.query_params.multi_items() if k != "cursor"] + [("cursor", cursor)]
        )
        response.headers["Link"] = f'<{request.url.path}?{query}>; rel="next"'


def _rfc_3339(value: Any) -> Any:
    """pydantic would take numbers too, and times that do not say of which zone they are."""
    if isinstance(value, str) and not RFC_3339.fullmatch(value):
        raise ValueError("must be a time of RFC 3339 with its zone, such as 2026-11-26T12:00:00Z")
    return value


Time = Annotated[AwareDatetime, BeforeValidator(_rfc_3339, json_schema_input_type=datetime)]
