"""Do the probes move the outputs at all (verification.md, point 7)?

s = max over pairs of probes of max|y64(i) − y64(j)| / gate. An output that hardly moves lets any artifact pass: a zero
head, a constant net, a random initialisation whose signal died out. Probes of different batch size are compared on the
part that both have.

Integers and booleans are compared exactly, so any move is evidence, and one of them may well be constant: a length, a
mask of what is there. But where all outputs are such and none of them ever moves, nothing was seen.
"""

from collections.abc import Collection, Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from app.conversion.verification.gate import farthest
from app.conversion.verification.ledger.forward import unheard
from app.conversion.verification.ledger.runs import traced_on
from app.conversion.verification.reference import Reference
from app.conversion.verification.verdict import inconclusive, note
from app.domain.architecture import Signature
from app.domain.report import Finding, Reason, Sensitivity

THRESHOLD = 100.0
"""Below this an error of a hundredth of the outputs' whole range would still pass the gate."""


def sensitivity(references: Sequence[Reference]) -> Sensitivity:
    """The figure for every float output; for the others, 0 each, where there are no float ones and none moves."""
    names = references[0].float_outputs if references else ()
    spreads = {name: _spread(name, references) for name in names}
    if references and not names and not any(_moves(name, references) for name in references[0].y64):
        spreads = dict.fromkeys(references[0].y64, 0.0)
    return Sensitivity(per_output=spreads, threshold=THRESHOLD)


def still(measured: Sensitivity) -> list[str]:
    """The outputs that hardly move."""
    return [name for name, spread in measured.per_output.items() if spread < measured.threshold]


def sensitivity_findings(measured: Sensitivity, constant: Collection[str]) -> list[Finding]:
    """What is said of outputs that hardly move. ``constant``: those of them that no input reaches."""
    return [
        note(Reason.constant_output, f"{name} is a constant: no input reaches it")
        if name in constant
        else inconclusive(
            Reason.insensitive,
            f"{name} moves by {measured.per_output[name]:.3g} gates over all probes (at least {measured.threshold:g} "
            "needed): the outputs hardly depend on the inputs, so agreement proves nothing",
        )
        for name in still(measured)
    ]


def constants_beside(
    module: nn.Module, signature: Signature, measured: Sensitivity, references: Sequence[Reference]
) -> set[str]:
    """Still outputs that no input reaches, beside at least one that moves: of a constant, agreement proves all.

    Where the forward cannot be followed, none are known.
    """
    names, inputs = still(measured), references[0].probe.inputs
    if not names or not any(_moves(name, references) for name in references[0].y64 if name not in names):
        return set()
    try:
        found = traced_on(module, signature, inputs)(unheard)
    except Exception:  # noqa: BLE001 - a module's forward may raise anything under a dispatch mode
        return set()
    return {
        name for name, constant in zip(references[0].y32, found.constant, strict=True) if constant and name in names
    }


def _spread(name: str, references: Sequence[Reference]) -> float:
    widest = 0.0
    for left, right in combinations(references, 2):
        a, b = common_part(left.y64[name], right.y64[name])
        width = max(left.gate(name).width, right.gate(name).width)
        moved = farthest(a, b)
        if moved > 0 and width > 0:
            widest = max(widest, moved / width)
    return widest


def _moves(name: str, references: Sequence[Reference]) -> bool:
    """Whether an output that is compared exactly differs between two probes; its shape may only by their sizes."""
    for left, right in combinations(references, 2):
        a, b = left.y64[name], right.y64[name]
        if left.probe.sizes == right.probe.sizes and a.shape != b.shape:
            return True
        if not torch.equal(*common_part(a, b)):
            return True
    return False


def common_part(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """What two tensors of one rank but perhaps other sizes both have; of other ranks, their first elements."""
    if left.dim() != right.dim():
        return left.flatten()[:1], right.flatten()[:1]
    window = tuple(slice(0, min(a, b)) for a, b in zip(left.shape, right.shape, strict=True))
    return left[window], right[window]
