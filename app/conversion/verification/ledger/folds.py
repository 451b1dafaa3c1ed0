"""Folds: a batch norm taken into the layer before it, recomputed in float64 and compared to a rounding bound.

Formula (Jacob et al. 2018, https://arxiv.org/abs/1712.05877, section 3.2; PyTorch's fuse_conv_bn_weights):
w' = w · s and b' = (b − μ) · s + β with s = γ / √(σ² + ε).

The bound, with u the unit roundoff of the stored dtype (2⁻²⁴ for float32). An exporter evaluates the formula in the
stored dtype by some order of: rounding ε, adding it to σ² (2 roundings, halved by the root), the root, a reciprocal or
division, the product with γ, the product with w. Standard error analysis (Higham, Accuracy and Stability of Numerical
Algorithms, lemma 3.1) gives |ŵ' − w'| ≤ γ₆ |w'| with γₙ = nu / (1 − nu); NORM_ROUNDINGS + 1 = 8 leaves two roundings
for implementations whose root or reciprocal is not correctly rounded. The bias adds up to three terms, in either order
(b − μ)·s + β or b·s + (β − μ·s): |b̂' − b'| ≤ γ₁₂ (|b·s| + |μ·s| + |β|) by the same lemma, with the same slack. Where
several steps follow a layer (batch norm, layer scale), roundings and magnitudes add up step by step. What underflows is
lost absolutely, below the smallest normal number.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from app.conversion.verification.artifact.onnx_tensors import StoredTensor
from app.conversion.verification.claims import ConvBnFold
from app.conversion.verification.ledger.content import ONNX_DTYPES, as_tensor
from app.conversion.verification.ledger.forward import NormKeys

NORM_ROUNDINGS = 7
BIAS_ROUNDINGS = 4

ValueOf = Callable[[str], Tensor]
"""A tensor by state-dict key, in the architecture's dtype."""


@dataclass(frozen=True)
class Folded:
    """A fold in float64 and how far an honest evaluation in the stored dtype may lie from it, element by element."""

    value: Tensor
    magnitude: Tensor
    """What ``roundings`` multiplies: |w'| for a weight, the sum of the terms' absolute values for a bias."""
    roundings: int
    dtype: torch.dtype
    slack: Tensor | None = None
    """What the exporter's own evaluation of an operand that is an expression may add to the error."""

    @property
    def bound(self) -> Tensor:
        limits = torch.finfo(self.dtype)
        bound = (self.magnitude * (self.roundings * limits.eps / 2)).add_(limits.tiny)
        return bound if self.slack is None else bound + self.slack


@dataclass(frozen=True)
class Scaling:
    """One step y · scale + shift for each channel, in float64. ``size`` bounds the terms that make up the shift."""

    scale: Tensor
    shift: Tensor
    size: Tensor
    roundings: int


def norm_scaling(keys: NormKeys, value_of: ValueOf) -> Scaling:
    """A batch norm in eval mode as a scaling."""
    variance = value_of(keys.variance).double()
    gamma = value_of(keys.gamma).double() if keys.gamma else torch.ones_like(variance)
    beta = value_of(keys.beta).double() if keys.beta else torch.zeros_like(variance)
    scale = gamma / torch.sqrt(variance + keys.eps)
    mean = value_of(keys.mean).double() * scale
    return Scaling(scale, beta - mean, beta.abs() + mean.abs(), NORM_ROUNDINGS)


@dataclass(frozen=True)
class Operand:
    """A layer's weight or bias in float64, and how far the exporter's own evaluation may be from it."""

    value: Tensor
    error: float = 0.0


def folded_weight(weight: Operand, scalings: Sequence[Scaling], axis: int, groups: int, dtype: torch.dtype) -> Folded:
    """The layer's weight with the scalings folded in, in its own layout."""
    value, shape = weight.value, tuple(weight.value.shape)
    slack = torch.full((1,) * len(shape), weight.error, dtype=torch.float64)
    for scaling in scalings:
        scale = _along_channels(scaling.scale, shape, axis, groups)
        value, slack = value * scale, slack * scale.abs()
    roundings = 1 + sum(scaling.roundings for scaling in scalings)
    return Folded(value, value.abs(), roundings, dtype, slack.expand(shape) if weight.error else None)


def folded_bias(bias: Operand | None, scalings: Sequence[Scaling], dtype: torch.dtype) -> Folded:
    """The layer's bias with the scalings folded in, one number for each channel."""
    value = bias.value if bias is not None else torch.zeros_like(scalings[0].scale)
    slack = torch.full_like(value, bias.error) if bias is not None else torch.zeros_like(value)
    magnitude = value.abs()
    for scaling in scalings:
        value = value * scaling.scale + scaling.shift
        magnitude = magnitude * scaling.scale.abs() + scaling.size
        slack = slack * scaling.scale.abs()
    roundings = BIAS_ROUNDINGS + 1 + sum(scaling.roundings for scaling in scalings)
    return Folded(value, magnitude, roundings, dtype, slack)


def conv_bn(fold: ConvBnFold, value_of: ValueOf, dtype: torch.dtype) -> Folded:
    """The part of a claimed fold, in the layout of the unfolded weight or as a vector of channels."""
    scaling = norm_scaling(NormKeys(fold.gamma, fold.beta, fold.mean, fold.variance, fold.eps), value_of)
    if fold.part == "bias":
        return folded_bias(Operand(value_of(fold.bias).double()) if fold.bias else None, [scaling], dtype)
    return folded_weight(Operand(value_of(fold.weight).double()), [scaling], fold.axis, fold.groups, dtype)


def _along_channels(scale: Tensor, shape: tuple[int, ...], axis: int, groups: int) -> Tensor:
    """The channel scale, shaped to multiply the weight."""
    if axis == 0:
        return scale.reshape(-1, *[1] * (len(shape) - 1))
    grouped = scale.reshape(groups, 1, shape[1], *[1] * (len(shape) - 2))
    return grouped.expand(-1, shape[0] // groups, *[-1] * (len(shape) - 1)).flatten(0, 1)


def carries(stored: StoredTensor, folded: Folded, axes: tuple[int, ...] | None = None) -> float | None:
    """The largest error in units of the bound when the stored tensor is this fold (at most 1), else None.

    ``axes`` reorders the fold's axes before its elements are compared one by one with the stored ones.
    """
    dtype = ONNX_DTYPES.get(stored.data_type)
    if dtype is None or not dtype.is_floating_point or stored.numel != folded.value.numel():
        return None
    value, bound = folded.value, folded.bound
    if axes is not None:
        value, bound = value.permute(axes), bound.permute(axes)
    difference = as_tensor(stored).double().reshape(-1).sub_(value.reshape(-1)).abs_()
    ratio = float(difference.div_(bound.reshape(-1)).max()) if difference.numel() else 0.0
    return ratio if ratio <= 1 else None


@dataclass(frozen=True)
class RecurrentOperand:
    """One operand of an ONNX recurrent operator, as it follows from a torch recurrent module's layer."""

    operator: str
    position: int
    """Index among the operator's inputs: 1 for W, 2 for R, 3 for B."""
    tensors: tuple[str, ...]
    dims: tuple[int, ...]
    module: str
    gates: tuple[int, ...]

    def value(self, value_of: ValueOf) -> Tensor:
        """W or R as [directions, gates · hidden, …]; B as [directions, 2 · gates · hidden]."""
        reordered = [_reorder(value_of(name), self.gates) for name in self.tensors]
        if self.position != 3:
            return torch.stack(reordered)
        pairs = [torch.cat(reordered[start : start + 2]) for start in range(0, len(reordered), 2)]
        return torch.stack(pairs)


_GATES = {nn.LSTM: ("LSTM", (0, 3, 1, 2)), nn.GRU: ("GRU", (1, 0, 2)), nn.RNN: ("RNN", (0,))}
"""ONNX's gate order in terms of torch's: LSTM iofc from ifgo, GRU zrh from rzn (operator texts of onnx and torch)."""


def recurrent_operands(module: nn.Module) -> Iterator[RecurrentOperand]:
    """Every W, R and B that an exporter may make of the module's LSTM, GRU and RNN layers."""
    for path, child in module.named_modules():
        if not isinstance(child, nn.RNNBase) or type(child) not in _GATES:
            continue
        operator, gates = _GATES[type(child)]
        prefix = f"{path}." if path else ""
        for layer in range(child.num_layers):
            suffixes = [f"_l{layer}", f"_l{layer}_reverse"][: 2 if child.bidirectional else 1]
            parts = {1: ("weight_ih",), 2: ("weight_hh",), 3: ("bias_ih", "bias_hh")}
            for position, kinds in parts.items():
                names = tuple(f"{prefix}{kind}{suffix}" for suffix in suffixes for kind in kinds)
                if not all(hasattr(child, name[len(prefix) :]) for name in names):
                    continue
                sample = getattr(child, names[0][len(prefix) :])
                dims = (len(suffixes), *sample.shape) if position != 3 else (len(suffixes), 2 * sample.shape[0])
                yield RecurrentOperand(operator, position, names, dims, path, gates)


def _reorder(tensor: Tensor, gates: tuple[int, ...]) -> Tensor:
    chunks = tensor.chunk(len(gates), dim=0)
    return torch.cat([chunks[gate] for gate in gates])
