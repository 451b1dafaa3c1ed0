"""Which layer a result of the forward comes out of, and what has followed it channel by channel: what can be folded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from app.conversion.verification.ledger.formula import number_formula
from app.conversion.verification.ledger.forward import ChannelStep, Data, FoldSite, Layer, NormKeys, Value
from app.conversion.verification.ledger.operators import CHANNEL_STEPS, KEEP_CHANNELS, is_layer


@dataclass(frozen=True)
class OperatorCall:
    """One call of an operator on data: its turn, what its tensors are, and its arguments by name."""

    turn: int
    operator: str
    origins: Sequence[Value | Data]
    named: Mapping[str, Any]
    origin_of: Callable[[Tensor], Value | Data]

    def value(self, tensor: object) -> Value | None:
        """The weight-only value that an operand is; of one that was only transposed or viewed, what it was before."""
        origin = self.origin_of(tensor) if isinstance(tensor, Tensor) and tensor.numel() else None
        while isinstance(origin, Value) and len(origin.inputs) == 1 and not origin.arithmetic:
            origin = origin.inputs[0]
        return origin if isinstance(origin, Value) else None

    def key(self, tensor: object) -> str | None:
        """The key whose tensor an operand is."""
        value = self.value(tensor)
        return min(value.lineage) if value is not None and value.lineage and not value.inputs else None


def site_of(call: OperatorCall) -> FoldSite | None:
    """The layer that the result comes out of, and the steps since; None when anything else has changed it."""
    if is_layer(call.operator):
        return _layer(call)
    before = next((origin.site for origin in call.origins if isinstance(origin, Data)), None)
    if before is None or call.operator in KEEP_CHANNELS:
        return before
    step = _step(call)
    return FoldSite(before.layer, (*before.steps, step)) if step is not None else None


def _layer(call: OperatorCall) -> FoldSite | None:
    named = call.named
    weight = call.value(named.get("weight", named.get("mat2", named.get("other"))))
    if weight is None or not weight.lineage:
        return None
    bias = call.value(named.get("bias", named.get("self") if call.operator == "addmm" else None))
    transposed = bool(named.get("transposed")) or "transpose" in call.operator
    groups = named.get("groups", 1)
    return FoldSite(Layer(call.turn, weight, bias, int(transposed), groups if isinstance(groups, int) else 1), ())


def _step(call: OperatorCall) -> ChannelStep | None:
    if "running_mean" in call.named and "running_var" in call.named:
        return _batch_norm(call)
    plain = call.operator.rstrip("_")
    if plain not in CHANNEL_STEPS or call.named.get("alpha", 1) != 1:
        return None
    data_first = isinstance(call.origins[0], Data)
    value = call.origins[-1] if data_first else call.origins[0]
    other = call.named.get("other")
    if len(call.origins) == 1 and isinstance(other, (int, float)):
        value = Value(frozenset(), formula=number_formula(other))
    if not isinstance(value, Value) or not (data_first or plain in ("mul", "add")):
        return None
    return ChannelStep(call.turn, plain, value=value)


def _batch_norm(call: OperatorCall) -> ChannelStep | None:
    named = call.named
    mean, variance = call.key(named["running_mean"]), call.key(named["running_var"])
    if mean is None or variance is None:
        return None
    gamma, beta = call.key(named.get("weight")), call.key(named.get("bias"))
    return ChannelStep(call.turn, "batch_norm", norm=NormKeys(gamma, beta, mean, variance, float(named["eps"])))
