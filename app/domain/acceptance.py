"""Which verdicts a client takes for success: only those end a conversion as ``succeeded``."""

from collections.abc import Collection, Iterable

from app.domain.errors import Problem, VerdictNotAccepted
from app.domain.report import Verdict

BEST_FIRST = (Verdict.passed, Verdict.pass_with_notes, Verdict.inconclusive)
"""A verdict ``fail`` is taken by the option ``on_mismatch: warn`` alone; ``within_budget``, which only an approximation
has that was asked for, counts as ``pass_with_notes``."""
DEFAULT = (Verdict.passed, Verdict.pass_with_notes)


def accepted(named: Iterable[Verdict]) -> tuple[Verdict, ...]:
    """The worst verdict that is named and all better ones: nobody wants a worse result only."""
    worst = max((BEST_FIRST.index(verdict) for verdict in named), default=BEST_FIRST.index(DEFAULT[-1]))
    return BEST_FIRST[: worst + 1]


def refusal(verdict: Verdict | None, accept: Collection[str], *, on_mismatch: str) -> Problem | None:
    """Why a conversion that ended with ``verdict`` did not succeed; None if the client takes it."""
    counted = Verdict.pass_with_notes if verdict is Verdict.within_budget else verdict
    if verdict is None or counted in accept or (verdict is Verdict.fail and on_mismatch == "warn"):
        return None
    return VerdictNotAccepted(
        f"Verification ended with the verdict {verdict.value}; the request accepts {', '.join(accept)}.",
        stage="verify",
        verdict=verdict.value,
        accept=list(accept),
    ).problem()
