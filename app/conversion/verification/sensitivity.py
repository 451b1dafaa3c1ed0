"""Do the probes move the outputs at all (verification.md, point 7)?

s = max over pairs of probes of max|y64(i) − y64(j)| / gate. An output that hardly moves lets any artifact pass: a zero
head, a constant net, a random initialisation whose signal died out. Probes of different batch size are compared on the
part that both have.
"""

from collections.abc import Sequence
from itertools import combinations

from torch import Tensor

from app.conversion.verification.gate import farthest
from app.conversion.verification.oracle import Reference
from app.conversion.verification.verdict import inconclusive
from app.domain.report import Finding, Reason, Sensitivity

THRESHOLD = 100.0
"""Below this an error of a hundredth of the outputs' whole range would still pass the gate."""


def sensitivity(references: Sequence[Reference]) -> Sensitivity:
    """The figure for every float output; outputs of other dtypes are compared exactly and need none."""
    names = references[0].float_outputs if references else ()
    return Sensitivity(per_output={name: _spread(name, references) for name in names}, threshold=THRESHOLD)


def sensitivity_findings(measured: Sensitivity) -> list[Finding]:
    return [
        inconclusive(
            Reason.insensitive,
            f"{name} moves by {spread:.3g} gates over all probes (at least {measured.threshold:g} needed): the outputs "
            "hardly depend on the inputs, so agreement proves nothing",
        )
        for name, spread in measured.per_output.items()
        if spread < measured.threshold
    ]


def _spread(name: str, references: Sequence[Reference]) -> float:
    widest = 0.0
    for left, right in combinations(references, 2):
        a, b = common_part(left.y64[name], right.y64[name])
        width = max(left.gate(name).width, right.gate(name).width)
        moved = farthest(a, b)
        if moved > 0 and width > 0:
            widest = max(widest, moved / width)
    return widest


def common_part(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """What two tensors of one rank but perhaps other sizes both have; of other ranks, their first elements."""
    if left.dim() != right.dim():
        return left.flatten()[:1], right.flatten()[:1]
    window = tuple(slice(0, min(a, b)) for a, b in zip(left.shape, right.shape, strict=True))
    return left[window], right[window]
