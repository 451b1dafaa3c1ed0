"""The error codes as a resource, so that the ``type`` of a problem leads to what it means."""

import json
from typing import Any

from pydantic import BaseModel

from app.api.problem_examples import CASES
from app.api.problems import PROBLEM_RESPONSES, problem_document, problem_type
from app.api.readable import ReadableRouter
from app.domain.errors import NotFound, RecastError

router = ReadableRouter(prefix="/v1/problems", tags=["problems"], responses=PROBLEM_RESPONSES)


REQUEST = "req_5f2c1d9e7a804b36"
"""The request_id of the examples."""


class ProblemKind(BaseModel):
    """One row of the error table. ``status`` is the HTTP status when the error answers a request, ``example`` a problem
    document of this code."""

    type: str
    code: str
    title: str
    status: int
    hint: str | None
    example: dict[str, Any]


def problem_kinds() -> dict[str, ProblemKind]:
    """Every designed error by its code, in alphabetical order."""
    kinds: dict[str, ProblemKind] = {}
    waiting: list[type[RecastError]] = RecastError.__subclasses__()
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if "code" not in vars(kind) or kind.code not in CASES:
            continue  # tells of another kind's problem, or of what no request can be told, such as a wrong command line
        kinds[kind.code] = ProblemKind(
            type=problem_type(kind.code),
            code=kind.code,
            title=kind.title,
            status=kind.status,
            hint=kind.hint,
            example=_example(kind),
        )
    return dict(sorted(kinds.items()))


def _example(kind: type[RecastError]) -> dict[str, Any]:
    case = CASES[kind.code]
    problem = kind(case.detail, **case.members).problem()
    document: dict[str, Any] = json.loads(problem_document(problem, instance=case.instance, request_id=REQUEST))
    return document


@router.get("", summary="List error codes")
async def list_problems() -> list[ProblemKind]:
    """All codes that a problem document or a failed conversion can carry."""
    return list(problem_kinds().values())


@router.get("/{code}", summary="Explain an error code")
async def explain_problem(code: str) -> ProblemKind:
    kind = problem_kinds().get(code)
    if kind is None:
        raise NotFound(f"No error has the code {code[:100]!r}.")
    return kind
