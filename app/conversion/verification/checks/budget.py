"""Point 2 for an approximation: within its budget, and moved by the inputs farther than it is off.

That the graph is the model's was proved on the artifact that it was derived from; that its weights are the uploaded
ones in fewer bits, the ledger proves.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import combinations

from app.conversion.verification.accuracy_budget import apart, held_to, rms
from app.conversion.verification.case import Case
from app.conversion.verification.check import check, loaded, referenced, unrefuted
from app.conversion.verification.checks.sensitivity import common_part
from app.conversion.verification.comparison import Comparison, failures
from app.domain.conversion import AccuracyBudget
from app.domain.report import BudgetReport, OutputBudget, OutputParity, Reason

CLEAR_OF_NOISE = 2.0
"""Times its error that an output must move over all probes before agreement says anything."""


def approximate(case: Case) -> bool:
    """The artifact was asked for as an approximation."""
    return case.subject.tolerance is not None


@check(approximate, loaded)
def budget(case: Case) -> None:
    """Every output of every probe within the budget, and over all of them as many rows in agreement as it asks for."""
    allowed = case.subject.tolerance
    assert allowed is not None
    case.compared += [held_to(allowed, case.artifact, taken) for taken in case.references]
    case.findings += failures(case.compared)
    outputs = tuple(_over_all(allowed, case.compared))
    case.budget = BudgetReport(
        snr_db=allowed.snr_db, top1=allowed.top1, default=allowed == AccuracyBudget(), outputs=outputs
    )
    for output in outputs:
        if output.top1 is not None and output.top1 < allowed.top1:
            detail = f"{output.output}: top-1 agreement {output.top1:.2%}, the budget asks for {allowed.top1:.2%}"
            case.find(Reason.over_budget, detail)


@check(referenced, unrefuted)
def movement(case: Case) -> None:
    """That outputs follow the inputs farther than the approximation is off."""
    for name in case.references[0].float_outputs if len(case.references) > 1 else ():
        pairs = combinations(case.references, 2)
        moved = max((rms(apart(*common_part(a.y32[name], b.y32[name]))) for a, b in pairs), default=0.0)
        errors = (o.error for c in case.compared for o in c.result.outputs if o.output == name)
        error = max(errors, default=0.0)
        if moved < CLEAR_OF_NOISE * error:
            detail = f"{name} moves by {moved:.3g} over all probes, and the approximation is off by {error:.3g}"
            case.find(Reason.insensitive, f"{detail}: agreement proves little")


def _over_all(budget: AccuracyBudget, compared: Sequence[Comparison]) -> Iterator[OutputBudget]:
    by_name: dict[str, list[OutputParity]] = {}
    for output in (output for comparison in compared for output in comparison.result.outputs):
        by_name.setdefault(output.output, []).append(output)
    for name, seen in by_name.items():
        rows = [(o.top1, _rows(o)) for o in seen if o.top1 is not None]
        total = sum(count for _, count in rows)
        top1 = sum(share * count for share, count in rows) / total if total else None
        agreed = top1 is None or top1 >= budget.top1
        yield OutputBudget(
            output=name,
            snr_db=min((o.snr_db for o in seen if o.snr_db is not None), default=None),
            top1=top1,
            passed=agreed and all(o.passed for o in seen),
        )


def _rows(output: OutputParity) -> int:
    """Of a float output as many as it has along all but its last axis; of integers, its elements."""
    return math.prod(output.shape if output.is_integer else output.shape[:-1])
