"""Small faults in a module's weights, of the kinds that conversions have been seen to make.

One family for two uses: detection.py perturbs the eager module to learn what the probes would see, and
scripts/bench/faults puts the same kinds into real artifacts, so that the reported detection power means something.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from app.conversion.verification.tolerance import unit_roundoff

ELEMENT, STALE, SWAPPED = "one element +10 %", "stale tensor", "two tensors swapped"
BIAS, CLASSES, DEFAULTS = "bias zeroed", "two classes swapped", "statistics at defaults"
HALF, BRAIN = "rounded to float16", "rounded to bfloat16"
KINDS = (ELEMENT, STALE, SWAPPED, BIAS, CLASSES, DEFAULTS, HALF, BRAIN)
_ROUNDINGS = {HALF: torch.float16, BRAIN: torch.bfloat16}

_STALENESS = 0.05
"""Root-mean-square distance of a stale tensor from the right one, relative to its own: a few hundred training steps."""


@dataclass(frozen=True)
class Perturbation:
    """New values for some tensors of a state dict, by key; ``layer`` is the module that owns the first of them."""

    kind: str
    layer: str
    tensors: dict[str, Tensor]


def faults_at(coarseness: float) -> Sequence[str]:
    """The kinds that are faults of a file with so many times the unit roundoff of float32: to round no coarser than
    that is what was asked for."""
    unit = coarseness * unit_roundoff(torch.float32)
    return [kind for kind in KINDS if kind not in _ROUNDINGS or unit_roundoff(_ROUNDINGS[kind]) > unit]


def draw_perturbations(
    module: nn.Module, count: int, seed: int, kinds: Sequence[str] = KINDS
) -> Iterator[Perturbation]:
    """Up to ``count`` perturbations that change something: the kinds in turn, each at a layer drawn at random.

    Each is drawn when the one before was taken, and not held here: one may be as large as all weights.
    """
    weights = _Weights(module, torch.Generator().manual_seed(seed))
    drawn = fruitless = 0
    while drawn < count and fruitless < len(kinds):
        made = weights.draw(kinds[(drawn + fruitless) % len(kinds)])
        if made is None:
            fruitless += 1
            continue
        drawn, fruitless = drawn + 1, 0
        yield made
        del made


class _Weights:
    """The float tensors of a module by state-dict key, tied ones once, and the generator that picks among them."""

    def __init__(self, module: nn.Module, generator: torch.Generator) -> None:
        named = (*module.named_parameters(), *module.named_buffers())
        persistent = set(module.state_dict())
        self._tensors = {n: t.detach() for n, t in named if t.is_floating_point() and t.numel() and n in persistent}
        self._generator = generator
        self._makers: dict[str, Callable[[], Perturbation | None]] = {
            ELEMENT: self._element,
            STALE: self._stale,
            SWAPPED: self._swapped,
            BIAS: self._bias,
            CLASSES: self._classes,
            DEFAULTS: self._defaults,
            **{kind: partial(self._rounded, kind, dtype) for kind, dtype in _ROUNDINGS.items()},
        }

    def draw(self, kind: str, attempts: int = 4) -> Perturbation | None:
        """A perturbation of that kind that changes a value; None if the module offers none."""
        for _ in range(attempts):
            made = self._makers[kind]()
            if made and any(not torch.equal(value, self._tensors[key]) for key, value in made.tensors.items()):
                return made
        return None

    def _pick(self, keys: list[str]) -> str | None:
        """A key drawn layer first, so that a layer of many tensors is not drawn more often."""
        layers = sorted({key.rpartition(".")[0] for key in keys})
        if not layers:
            return None
        layer = layers[self._below(len(layers))]
        inside = [key for key in keys if key.rpartition(".")[0] == layer]
        return inside[self._below(len(inside))]

    def _below(self, limit: int) -> int:
        return int(torch.randint(limit, (), generator=self._generator))

    def _made(self, kind: str, tensors: Mapping[str, Tensor]) -> Perturbation:
        return Perturbation(kind, next(iter(tensors)).rpartition(".")[0], dict(tensors))

    def _element(self) -> Perturbation | None:
        key = self._pick(list(self._tensors))
        if key is None:
            return None
        value = self._tensors[key].clone(memory_format=torch.contiguous_format)
        value.view(-1)[self._below(value.numel())] *= 1.1
        return self._made(ELEMENT, {key: value})

    def _stale(self) -> Perturbation | None:
        key = self._pick([k for k, t in self._tensors.items() if not k.endswith("running_var")])
        if key is None:
            return None
        value = self._tensors[key]
        # The tensor's own values in another place: a drift of the right size, without drawing millions of numbers.
        drift = value.flatten().roll(1 + self._below(value.numel())).reshape(value.shape)
        return self._made(STALE, {key: drift.mul_(_STALENESS).add_(value)})

    def _swapped(self) -> Perturbation | None:
        same_role: dict[str, list[str]] = {}
        for key, tensor in self._tensors.items():
            role = key.rpartition(".")[2]
            same_role[key] = [
                other
                for other, held in self._tensors.items()
                if other != key and held.shape == tensor.shape and other.rpartition(".")[2] == role
            ]
        chosen = self._pick([k for k, others in same_role.items() if others])
        if chosen is None:
            return None
        other = same_role[chosen][self._below(len(same_role[chosen]))]
        swapped = {chosen: self._tensors[other].clone(), other: self._tensors[chosen].clone()}
        return self._made(SWAPPED, swapped)

    def _bias(self) -> Perturbation | None:
        key = self._pick([k for k in self._tensors if k.rpartition(".")[2].startswith("bias")])
        return self._made(BIAS, {key: torch.zeros_like(self._tensors[key])}) if key else None

    def _classes(self) -> Perturbation | None:
        """Two classes of the last layer, weight and bias together.

        Its outputs lie along axis 0, or, where only the other axis is as long as the bias, along that: layers from
        other frameworks keep their weights as (in, out).
        """
        matrices = [k for k, t in self._tensors.items() if t.dim() == 2 and k.endswith("weight") and min(t.shape) > 1]
        if not matrices:
            return None
        key = matrices[-1]
        weight, bias = self._tensors[key], self._tensors.get(key.removesuffix("weight") + "bias")
        axis = 1 if bias is not None and len(bias) == weight.shape[1] != weight.shape[0] else 0
        count = weight.shape[axis]
        first = self._below(count)
        second = (first + 1 + self._below(count - 1)) % count
        order = torch.arange(count)
        order[[first, second]] = order[[second, first]]
        changed = {key: weight.index_select(axis, order)}
        if bias is not None and bias.shape == order.shape:
            changed[key.removesuffix("weight") + "bias"] = bias[order]
        return self._made(CLASSES, changed)

    def _defaults(self) -> Perturbation | None:
        """One batch norm with the statistics that a fresh one has: mean 0, variance 1."""
        means = [k for k in self._tensors if k.endswith("running_mean")]
        key = self._pick([k for k in means if k.removesuffix("mean") + "var" in self._tensors])
        if key is None:
            return None
        variance = key.removesuffix("mean") + "var"
        mean, var = torch.zeros_like(self._tensors[key]), torch.ones_like(self._tensors[variance])
        return self._made(DEFAULTS, {key: mean, variance: var})

    def _rounded(self, kind: str, dtype: torch.dtype) -> Perturbation | None:
        key = self._pick(list(self._tensors))
        return self._made(kind, {key: self._tensors[key].to(dtype).to(self._tensors[key].dtype)}) if key else None


@contextmanager
def replaced(module: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, the module computes with other tensors, wherever it holds the originals (ties included).

    Nothing is written into the originals: they may be a checkpoint's memory, mapped read-only.
    """
    originals = {id(module.get_parameter(k) if _is_parameter(module, k) else module.get_buffer(k)): k for k in tensors}
    places = [
        (owner, name, held)
        for owner in module.modules()
        for name, held in (*owner._parameters.items(), *owner._buffers.items())
        if held is not None and id(held) in originals
    ]
    try:
        for owner, name, held in places:
            value = tensors[originals[id(held)]]
            # setattr, not the dictionary: recurrent modules keep a flat list of their weights up to date with it.
            setattr(owner, name, nn.Parameter(value, requires_grad=False) if isinstance(held, nn.Parameter) else value)
        yield
    finally:
        for owner, name, held in places:
            setattr(owner, name, held)


def _is_parameter(module: nn.Module, key: str) -> bool:
    owner, _, name = key.rpartition(".")
    return name in module.get_submodule(owner)._parameters
