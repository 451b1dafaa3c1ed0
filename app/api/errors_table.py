"""The error codes as a resource, so that the ``type`` of a problem leads to what it means."""

from pydantic import BaseModel

from app.api.problems import PROBLEM_RESPONSES, problem_type
from app.api.readable import ReadableRouter
from app.domain.errors import NotFound, RecastError

router = ReadableRouter(prefix="/v1/problems", tags=["problems"], responses=PROBLEM_RESPONSES)


class ProblemKind(BaseModel):
    """One row of the error table. ``status`` is the HTTP status when the error answers a request."""

    type: str
    code: str
    title: str
    status: int
    hint: str | None


def problem_kinds() -> dict[str, ProblemKind]:
    """Every designed error by its code, in alphabetical order."""
    kinds: dict[str, ProblemKind] = {}
    waiting: list[type[RecastError]] = RecastError.__subclasses__()
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if "code" not in vars(kind):
            continue  # tells of another kind's problem
        kinds[kind.code] = ProblemKind(
            type=problem_type(kind.code), code=kind.code, title=kind.title, status=kind.status, hint=kind.hint
        )
    return dict(sorted(kinds.items()))


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
