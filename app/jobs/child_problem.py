"""The problem that a conversion process told of, as the service tells it on.

Of a process that ran a stranger's file or a plug-in's code only the code is taken, and only one that such a process can
have found out. Title and status are those of the error table; what is text stays text, bounded; members of the answer
itself, and those that become HTTP headers, are not its to give.
"""

import re
from functools import cache
from typing import Any

from app.domain import errors
from app.domain.conversion import Stage
from app.domain.errors import LISTED, Problem, RecastError
from app.domain.text import LONGEST_DETAIL, storable, storable_json

MOST_MEMBERS = 24
LONGEST_NAME = 1_000
"""Characters of a text inside a member, such as the name of a tensor."""
MOST_VALUES = 2_000
"""Values of all members together, however they are nested."""
MEMBER = re.compile(r"[a-z][a-z0-9_]{0,40}")
RESERVED = frozenset(Problem.model_fields) | {
    "type",
    "instance",
    "request_id",
    "id",
    "conversion",
    "retry_after",
    "content_range",
    "location",
}
"""Members that belong to the answer or become a header of it."""
TOLD_STATUSES = frozenset({*range(400, 500), errors.InsufficientStorage.status})
STAGES = frozenset(stage.value for stage in Stage)
MACHINERY = frozenset(
    kind.code
    for kind in (
        errors.Canceled,
        errors.WorkerLost,
        errors.ChildCrashed,
        errors.TimedOut,
        errors.SandboxUnavailable,
        errors.FetchFailed,
        errors.PublishFailed,
        errors.SourceNotAllowed,
        errors.AddressNotAllowed,
    )
)
"""What only the service itself can know."""


class NotTheChilds(ValueError):
    """A conversion process told of an error that is not its to tell."""


def retold(problem: Problem) -> Problem:
    """What a child told, as a problem of this service. Raises NotTheChilds for a code that no child can know."""
    kind = _tellable().get(problem.code)
    if kind is None:
        raise NotTheChilds(f"code {problem.code[:100]!r}")
    return Problem(
        code=kind.code,
        title=kind.title,
        status=kind.status,
        detail=storable(problem.detail, LONGEST_DETAIL),
        stage=problem.stage if problem.stage in STAGES else None,
        hint=storable(problem.hint, LONGEST_DETAIL) if problem.hint is not None else kind.hint,
        extra=_bounded(problem.extra),
    )


@cache
def _tellable() -> dict[str, type[RecastError]]:
    kinds: dict[str, type[RecastError]] = {}
    waiting = RecastError.__subclasses__()
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if kind.__module__ == errors.__name__ and kind.status in TOLD_STATUSES and kind.code not in MACHINERY:
            kinds[kind.code] = kind
    return kinds


def _bounded(extra: dict[str, Any]) -> dict[str, Any]:
    """The members that may be told on, each cut to what a reader can use."""
    kept: dict[str, Any] = {}
    room = MOST_VALUES
    for name, value in list(extra.items())[:MOST_MEMBERS]:
        if name in RESERVED or not MEMBER.fullmatch(name):
            continue
        shown = value[:LISTED] if isinstance(value, list) else value
        room -= _values(shown, room)
        if room < 0:
            break
        kept[name] = storable_json(shown, LONGEST_NAME)
    return kept


def _values(value: Any, most: int) -> int:
    """How many values a JSON value is made of; counting ends beyond ``most``."""
    count = 0
    waiting = [value]
    while waiting and count <= most:
        value = waiting.pop()
        count += 1
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, float | int) and not abs(value) < 2**63:
            return most + 1
    return count
