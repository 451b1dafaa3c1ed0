"""Reading request bodies within limits of size and time."""

import asyncio
import json
import math
import re
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from app.api.problems import RequestTimeout, from_validation
from app.domain.errors import InvalidRequest, PayloadTooLarge

Model = TypeVar("Model", bound=BaseModel)

STALL_SECONDS = 60.0
"""A body of which nothing arrives for this long is given up, so that slow senders cannot hold connections for ever."""
GRACE_SECONDS = 30.0
LEAST_RATE = 1024
"""Bytes a second that a body must bring on the average, once GRACE_SECONDS have been waited for it."""
MAX_JSON = 256 << 10
"""Bytes of a JSON body; the largest honest one lists the names of some thousand inputs and outputs."""
MAX_JSON_DEPTH = 64
MAX_JSON_VALUES = 20_000
"""Members and elements of a JSON body on all levels, which bounds the work of checking it."""
OPENING_VALUES = (",", "[", "{")
JSON_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
"""One without an end too, so that no place is read twice."""
EMPTY = re.compile(r"[\[{]\s*+[\]}]")
LONGEST_NUMBER = 64
"""Characters of a JSON number; a double needs 24, and converting a longer one costs time."""


async def body_stream(request: Request) -> AsyncIterator[bytes]:
    """The body as it arrives. Raises RequestTimeout when it stalls or trickles, ClientDisconnect when it ends early.

    Only the time in which this side waits for the client counts.
    """
    stream = request.stream()
    clock = asyncio.get_running_loop().time
    waited = 0.0
    received = 0
    while True:
        began = clock()
        patience = min(STALL_SECONDS, max(0.0, GRACE_SECONDS + received / LEAST_RATE - waited))
        try:
            async with asyncio.timeout(patience):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise RequestTimeout(
                f"The body came too slowly: {received} bytes in {waited + patience:.0f} s.",
                hint=f"At least {LEAST_RATE} bytes a second are expected, and a byte every {STALL_SECONDS:.0f} s.",
            ) from None
        if chunk is None:
            return
        waited += clock() - began
        received += len(chunk)
        yield chunk


def refuse_announced_size(request: Request, limit: int) -> None:
    """Raises PayloadTooLarge before anything is read when Content-Length already says so."""
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced[:20]) > limit:
        raise PayloadTooLarge(f"The body has {announced[:20]} bytes; at most {limit} are accepted.", limit=limit)


async def collect(chunks: AsyncIterable[bytes], most: int, refusal: Exception) -> bytes:
    """The chunks as one. Raises ``refusal`` as soon as there are more than ``most`` bytes."""
    collected = bytearray()
    async for chunk in chunks:
        collected += chunk
        if len(collected) > most:
            raise refusal
    return bytes(collected)


async def json_object(request: Request) -> dict[str, Any]:
    """The body as a JSON object. Raises InvalidRequest, PayloadTooLarge."""
    text = await json_text(request, MAX_JSON)
    return await asyncio.to_thread(parse_object, text, "the body")


async def json_text(request: Request, most: int) -> str:
    """The body, which is to be JSON of at most so many bytes, unread. Raises InvalidRequest, PayloadTooLarge."""
    refuse_announced_size(request, most)
    refusal = PayloadTooLarge(f"A JSON body may have {most} bytes here.", limit=most)
    collected = await collect(body_stream(request), most, refusal)
    try:
        return collected.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidRequest("The JSON body is not UTF-8.") from None


def json_body(model: type[BaseModel], example: Mapping[str, Any]) -> dict[str, Any]:
    """The OpenAPI description of a body that ``json_model`` reads; openapi.py moves its ``$defs`` to the components."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}}


async def json_model(request: Request, model: type[Model]) -> Model:
    """The body as a value of ``model``. Raises InvalidRequest, PayloadTooLarge."""
    return validated(model, await json_object(request))


def validated(model: type[Model], body: Mapping[str, Any]) -> Model:
    """A JSON object as a value of ``model``. Raises InvalidRequest."""
    try:
        return model.model_validate_json(json.dumps(body))
    except ValidationError as error:
        repeated = not model.model_config.get("hide_input_in_errors", False)
        raise from_validation(error.errors(include_url=False, include_input=repeated)[:1]) from None


def parse_object(text: str, what: str, most_values: int = MAX_JSON_VALUES) -> dict[str, Any]:
    """``text`` as a JSON object free of NaN and infinities. Raises InvalidRequest that names ``what``."""
    _refuse_many(text, what, most_values)
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_integer)
    except RecursionError:
        raise InvalidRequest(f"{what} is nested deeper than {MAX_JSON_DEPTH} levels.") from None
    except ValueError as error:
        raise InvalidRequest(f"{what} is not JSON: {str(error)[:200]}.") from None
    if not isinstance(value, dict):
        raise InvalidRequest(f"{what} must be a JSON object, not {type(value).__name__}.")
    refuse_large(value, what, most_values)
    if "\\u0000" in text or "\\ud" in text.lower():
        _refuse_unstorable(value, what)
    return value


def _refuse_constant(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:LONGEST_NUMBER]} is beyond the range of numbers")
    return value


def _integer(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise ValueError(f"{text[:LONGEST_NUMBER]}... is beyond the range of numbers")
    return int(text)


def _refuse_many(text: str, what: str, most: int) -> None:
    """Raises InvalidRequest for more values than ``most``, before any is made: each but the first of a list or object
    follows a comma. Strings hold commas too, so that they are left out where the plain count is too high."""
    if sum(map(text.count, OPENING_VALUES)) <= most:
        return
    bare = JSON_STRING.sub('""', text)
    if sum(map(bare.count, OPENING_VALUES)) - len(EMPTY.findall(bare)) > most:
        raise InvalidRequest(f"{what} holds more than {most} values.")


def refuse_large(value: Any, what: str, most: int) -> None:
    """Raises InvalidRequest where checking the value would take long, before anything is checked."""
    level = [value]
    values = 0
    for _ in range(MAX_JSON_DEPTH + 1):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent if isinstance(parent, list) else ())
        ]
        values += len(level)
        if values > most:
            raise InvalidRequest(f"{what} holds more than {most} values.")
        if not level:
            return
    raise InvalidRequest(f"{what} is nested deeper than {MAX_JSON_DEPTH} levels.")


def _refuse_unstorable(value: Any, what: str) -> None:
    """NUL and lone surrogates are legal in JSON and cannot be stored in PostgreSQL's text or JSON."""
    level = [value]
    while level:
        item = level.pop()
        if isinstance(item, str):
            if "\0" in item or any("\ud800" <= character <= "\udfff" for character in item):
                raise InvalidRequest(f"{what} holds a NUL or a lone surrogate.")
        elif isinstance(item, dict):
            level += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            level += item
