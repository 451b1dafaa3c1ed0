"""Orientation: a square weight may lie in the file as it is or transposed, and only one of the two is right.

For other shapes the operators' own shape rules decide. For a square matrix that was found by its content, the operator
that takes it tells which axis is summed over: the second of a Gemm with transB, the first of a MatMul. It must be the
axis that the eager operator sums over: the second of a linear layer's weight, the first of a matmul's right operand.
Convolutions and lookups take their weights untransposed in both.
"""

from collections.abc import Iterable, Mapping

from torch import Tensor

from app.conversion.verification.ledger_forward import Use
from app.conversion.verification.ledger_order import GraphUse
from app.conversion.verification.ledger_sources import raw_bytes, same_bytes
from app.conversion.verification.onnx_tensors import StoredTensor

_SUMMED_EAGERLY = {("linear", 1): 1, ("matmul", 1): 0, ("mm", 1): 0, ("addmm", 2): 0}
"""Axis of the weight that the eager operator sums over, by operator and position among its tensors."""
_SUMMED_IN_CODE = {"linear": 1, "matmul": 0, "mm": 0, "addmm": 0}
_UNTRANSPOSED = ("conv", "embedding", "Conv", "Gather")


def misoriented(
    axes: Mapping[tuple[StoredTensor, str], tuple[int, ...]],
    values: Mapping[str, Tensor],
    eager: Iterable[Use],
    graph: Iterable[GraphUse],
) -> list[str]:
    """Stored tensors whose operator sums over the wrong axis, in words.

    ``axes`` gives, for a stored tensor and a key it carries, which axis of that tensor each stored axis is.
    """
    expected: dict[str, set[int | None]] = {}
    for use in eager:
        for name in use.value.lineage if not use.value.inputs else ():
            expected.setdefault(name, set()).add(_summed_eagerly(use))
    arrivals: dict[StoredTensor, list[GraphUse]] = {}
    for at in graph:
        arrivals.setdefault(at.stored, []).append(at)
    found = []
    for (stored, name), order in axes.items():
        wanted = expected.get(name, set())
        if len(wanted) != 1 or len(order) != len(stored.dims) or len(set(values[name].shape)) != 1 or len(order) < 2:
            continue
        axis = next(iter(wanted))
        summed = {_summed(at, order) for at in arrivals.get(stored, ())} - {None}
        if axis is not None and summed and summed != {axis} and not _symmetric(values[name]):
            found.append(f"{stored.name} holds {name}, but transposed the wrong way for its operator")
    return found


def _summed_eagerly(use: Use) -> int | None:
    if use.operator.startswith(_UNTRANSPOSED):
        return 1
    return _SUMMED_EAGERLY.get((use.operator, use.argument))


def _summed(at: GraphUse, order: tuple[int, ...]) -> int | None:
    """The axis of the carried tensor that the graph's operator sums over; None where the operator does not tell."""
    if at.axes is None:
        return None
    axis = None
    if at.operator == "MatMul" and at.argument == 1:
        axis = len(order) - 2
    elif at.operator == "Gemm" and at.argument == 1:
        axis = 1 if at.transposed else 0
    elif at.operator.startswith(_UNTRANSPOSED):
        axis = 1
    elif at.operator in _SUMMED_IN_CODE:
        axis = _SUMMED_IN_CODE[at.operator]
    return None if axis is None else order[at.axes[axis]]


def _symmetric(tensor: Tensor) -> bool:
    return same_bytes(raw_bytes(tensor), raw_bytes(tensor.transpose(0, 1)))
