"""Which tensors of a module have an influence on its outputs: found by giving them other values.

A forward with infinities, NaN and random numbers in a tensor's place, whose outputs are bit for bit what they were,
does not depend on that tensor for these inputs. No operator has to be known for it, and no flow of data followed: what
is cached or branched on, and by which kernel a layer computes, counts as it does when the model runs.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from app.architectures.calling import EagerModel, call
from app.architectures.module_state import state_kept
from app.architectures.sample import sample_inputs
from app.conversion.verification.ledger.sources import raw_bytes, same_bytes
from app.domain.architecture import Signature

_SEED = 20_240_229
_SCALES = (1.0, 0.05, 8.0)
"""Scales of the inputs on which a tensor must go without influence before it counts as unused. A template leaves out
what its own first, full verification found unused; there one input confirms it."""
_SMALL = {"batch": 1}

MOST_NAMED = 20
"""Acting tensors that are told apart from the others by runs of their own; beyond, what is left counts as acting."""

Inputs = Mapping[str, Tensor]


def inputs_to_try(signature: Signature, *, certified: bool = False) -> Iterator[Inputs]:
    """Inputs of the signature: at the sizes that were exported with, then small ones of other scales."""
    scales = _SCALES[:1] if certified else _SCALES
    for number, scale in enumerate(scales):
        admissible = {axis.name for axis in signature.axes if axis.minimum <= 1 and axis.multiple_of == 1}
        sizes = _SMALL if number or certified else {}
        chosen = {name: size for name, size in sizes.items() if name in admissible}
        yield sample_inputs(signature, chosen, torch.Generator().manual_seed(_SEED), scale=scale)


def without_influence(
    model: EagerModel,
    tensors: Mapping[str, Tensor],
    inputs: Iterable[Inputs],
    most: int | None = None,
) -> set[str]:
    """The names of those ``tensors`` of the module on which no output depends, on any of the ``inputs``.

    The module is left as it was. A forward that raises with other values depends on them, and so do the outputs on
    whatever is left when ``most`` tensors were found on which they do. Raises whatever the forward raises as it is.
    """
    aliased = _memory_beside(model.module, tensors.values())
    left = [name for name, tensor in tensors.items() if tensor.untyped_storage().data_ptr() not in aliased]
    model.module.eval()  # modules that cache what they made of their weights forget it here
    for given in inputs:
        left = _Forward(model, given, tensors).unmoving(left, most)
    return set(left)


def acting(model: EagerModel, tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The names of those of the module's ``tensors`` whose values reach an output on a sample input.

    Whatever cannot be told, because the forward raises or is not reproducible, counts as acting.
    """
    wanted = {name: tensor for name, tensor in tensors.items() if isinstance(tensor, Tensor) and tensor.numel()}
    idle: set[str] = set()
    if wanted:
        with suppress(Exception):  # a module's forward may raise anything
            inputs = next(inputs_to_try(model.signature))
            idle = without_influence(model, wanted, [inputs], MOST_NAMED)
    return tuple(name for name in wanted if name not in idle)


@dataclass(frozen=True)
class _Forward:
    """One forward of the module, the same whenever it is called."""

    model: EagerModel
    inputs: Inputs
    tensors: Mapping[str, Tensor]

    def __call__(self) -> dict[str, Tensor]:
        with (
            torch.random.fork_rng(devices=[]),
            state_kept(self.model.module),
        ):  # it may bind anew what it is called with
            torch.manual_seed(_SEED)
            return call(self.model, self.inputs)

    def unmoving(self, names: list[str], most: int | None) -> list[str]:
        """Those names whose tensors can have any values while the outputs stay; tried together, and then in halves."""
        usual = self()
        groups, still, moving = [names], set[str](), 0
        while groups and (most is None or moving < most):
            group = groups.pop(0)
            if not group or all(self._gives(usual, group, other) for other in _OTHERS):
                still.update(group)
            elif len(group) == 1:
                moving += 1
            else:
                half = len(group) // 2
                groups += [group[:half], group[half:]]
        return [name for name in names if name in still]

    def _gives(self, usual: Mapping[str, Tensor], names: list[str], other: Callable[[Tensor], Tensor]) -> bool:
        try:
            with _holding([self.tensors[name] for name in names], other):
                outputs = self()
        except Exception:  # noqa: BLE001 - a module's forward may raise anything on values it does not expect
            return False
        return outputs.keys() == usual.keys() and all(_same_bits(outputs[name], usual[name]) for name in usual)


@contextmanager
def _holding(tensors: Iterable[Tensor], other: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Meanwhile, the tensors hold other values, in memory of their own; afterwards all are what they were."""
    kept = {id(tensor): (tensor, tensor.data) for tensor in tensors}
    try:
        for tensor, data in kept.values():
            tensor.data = other(data)
        yield
    finally:
        for tensor, data in kept.values():
            tensor.data = data


def _inexact(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _random(tensor: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(_SEED)
    drawn = torch.randn if _inexact(tensor) else partial(torch.randint, 0, 2)
    return drawn(tensor.shape, generator=generator).to(tensor.dtype)


_OTHERS: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda tensor: torch.full_like(tensor, float("nan") if _inexact(tensor) else 0),
    lambda tensor: torch.full_like(tensor, float("inf") if _inexact(tensor) else 1),
    lambda tensor: torch.full_like(tensor, float("-inf")) if _inexact(tensor) else tensor.bitwise_not(),
    _random,
)
"""NaN runs through nearly all arithmetic; comparisons drop it, but not infinities of both signs."""


def _same_bits(left: Tensor, right: Tensor) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and same_bytes(raw_bytes(left), raw_bytes(right))


def _memory_beside(module: nn.Module, tried: Iterable[Tensor]) -> set[int]:
    """Storages of further tensors that modules keep beside parameters and buffers: other values would not be seen."""
    own = {id(tensor) for tensor in (*module.parameters(), *module.buffers(), *tried)}
    kept = _tensors((value for part in module.modules() for value in vars(part).values()), 0)
    return {tensor.untyped_storage().data_ptr() for tensor in kept if id(tensor) not in own}


def _tensors(values: Iterable[object], depth: int) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor) and value.layout is torch.strided:
            yield value
        elif isinstance(value, (list, tuple, set)) and depth < 3:
            yield from _tensors(value, depth + 1)
        elif isinstance(value, dict) and depth < 3:
            yield from _tensors(value.values(), depth + 1)
