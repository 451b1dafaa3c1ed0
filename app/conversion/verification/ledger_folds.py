"""Folds: a batch norm taken into the layer before it, recomputed in float64 and compared to a rounding bound.

Formula (Jacob et al. 2018, https://arxiv.org/abs/1712.05877, section 3.2; PyTorch's fuse_conv_bn_weights):
w' = w · s and b' = (b − μ) · s + β with s = γ / √(σ² + ε).

The bound, with u the unit roundoff of the stored dtype (2⁻²⁴ for float32). An exporter evaluates the formula in the
stored dtype by some order of: rounding ε, adding it to σ² (2 roundings, halved by the root), the root, a reciprocal or
division, the product with γ, the product with w. Standard error analysis (Higham, Accuracy and Stability of Numerical
Algorithms, lemma 3.1) gives |ŵ' − w'| ≤ γ₆ |w'| with γₙ = nu / (1 − nu); SLACK = 8 leaves two roundings for
implementations whose root or reciprocal is not correctly rounded. The bias adds up to three terms, in either order
(b − μ)·s + β or b·s + (β − μ·s): |b̂' − b'| ≤ γ₁₀ (|b·s| + |μ·s| + |β|) by the same lemma. What underflows is lost
absolutely, below the smallest normal number.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from app.conversion.verification.claims import ConvBnFold
from app.conversion.verification.ledger_content import ONNX_DTYPES, as_tensor
from app.conversion.verification.onnx_tensors import StoredTensor

WEIGHT_ROUNDINGS = 8
BIAS_ROUNDINGS = 12

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

    @property
    def bound(self) -> Tensor:
        limits = torch.finfo(self.dtype)
        return (self.magnitude * (self.roundings * limits.eps / 2)).add_(limits.tiny)


def conv_bn(fold: ConvBnFold, value_of: ValueOf, dtype: torch.dtype) -> Folded:
    """The fold's part, in the layout of the unfolded weight or as a vector of channels."""
    scale = _scale(fold, value_of)
    if fold.part == "weight":
        weight = value_of(fold.weight)
        value = weight.double().mul_(_along_channels(scale, tuple(weight.shape), fold))
        return Folded(value, value.abs(), WEIGHT_ROUNDINGS, dtype)
    mean = value_of(fold.mean).double() * scale
    bias = value_of(fold.bias).double() * scale if fold.bias else torch.zeros_like(scale)
    beta = value_of(fold.beta).double() if fold.beta else torch.zeros_like(scale)
    magnitude = bias.abs() + mean.abs() + beta.abs()
    return Folded(bias - mean + beta, magnitude, BIAS_ROUNDINGS, dtype)


def _scale(fold: ConvBnFold, value_of: ValueOf) -> Tensor:
    variance = value_of(fold.variance).double()
    gamma = value_of(fold.gamma).double() if fold.gamma else torch.ones_like(variance)
    return gamma / torch.sqrt(variance + fold.eps)


def _along_channels(scale: Tensor, shape: tuple[int, ...], fold: ConvBnFold) -> Tensor:
    """The channel scale, shaped to multiply the weight."""
    if fold.axis == 0:
        return scale.reshape(-1, *[1] * (len(shape) - 1))
    grouped = scale.reshape(fold.groups, 1, shape[1], *[1] * (len(shape) - 2))
    return grouped.expand(-1, shape[0] // fold.groups, *[-1] * (len(shape) - 1)).flatten(0, 1)


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
