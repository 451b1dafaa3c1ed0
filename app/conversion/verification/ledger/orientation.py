"""Orientation: a square weight may lie in the file as it is or transposed, and only one of the two is right.

For other shapes the operators' own shape rules decide. For a square matrix that was found by its content, the operator
that takes it tells which axis is summed over: the second of a Gemm with transB, the first of a MatMul. It must be the
axis that the eager operator sums over: the second of a linear layer's weight, the first of a matmul's right operand.
Convolutions and lookups take their weights untransposed in both.
"""

from collections.abc import Iterable, Mapping

from app.conversion.verification.artifact.onnx_tensors import StoredTensor
from app.conversion.verification.ledger.books import Axes
from app.conversion.verification.ledger.forward import Use, Value
from app.conversion.verification.ledger.graph_uses import GraphUse

_SUMMED_EAGERLY = {("linear", 1): 1, ("matmul", 1): 0, ("mm", 1): 0, ("addmm", 2): 0}
"""Axis of the weight that the eager operator sums over, by operator and position among its tensors."""
_SUMMED_IN_CODE = {"linear": 1, "matmul": 0, "mm": 0, "addmm": 0}
_UNTRANSPOSED = ("conv", "embedding", "Conv", "Gather")


def misoriented(
    orders: Mapping[tuple[StoredTensor, Value], Axes], eager: Iterable[Use], graph: Iterable[GraphUse]
) -> list[str]:
    """Stored tensors whose operator sums over the wrong axis, in words.

    ``orders`` gives, for a stored tensor and a value it carries, which axis of that value each stored axis is.
    """
    expected: dict[Value, set[int | None]] = {}
    for use in eager:
        expected.setdefault(use.value, set()).add(_summed_eagerly(use))
    arrivals: dict[StoredTensor, list[GraphUse]] = {}
    for at in graph:
        arrivals.setdefault(at.stored, []).append(at)
    found = []
    for (stored, value), order in orders.items():
        wanted = expected.get(value, set())
        if len(wanted) != 1 or len(order) < 2 or len(order) != len(stored.dims) or len(set(stored.dims)) != 1:
            continue
        axis = next(iter(wanted))
        summed = {_summed(at, order) for at in arrivals.get(stored, ())} - {None}
        if axis is not None and summed and summed != {axis} and not _symmetric(stored):
            name = ", ".join(sorted(value.lineage))
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


def _symmetric(stored: StoredTensor) -> bool:
    elements = stored.data.reshape(*stored.dims, -1)
    return bool((elements == elements.swapaxes(0, 1)).all())
