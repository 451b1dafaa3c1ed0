"""Which parts of a model that no checkpoint brought act on its outputs."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from app.architectures.calling import call
from app.architectures.sample import sample_inputs
from app.domain.architecture import Signature

MOST_NAMED = 20
"""Acting tensors that are told apart from the others by runs of their own; beyond, what is left counts as acting."""


def acting(module: nn.Module, signature: Signature, tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The names of those of the module's ``tensors`` whose values reach an output on a sample input.

    They are given other values, all at once and then in halves, and the outputs are compared bit for bit. Whatever
    cannot be told, because the forward raises or is not reproducible, counts as acting.
    """
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers(), *tensors.values())}
    trial = copy.deepcopy(module, shared)  # what a forward leaves in the module stays out of it
    wanted = [name for name, tensor in tensors.items() if isinstance(tensor, Tensor) and tensor.numel()]
    inputs = sample_inputs(signature, {}, torch.Generator().manual_seed(0))

    def outputs() -> list[Tensor] | None:
        try:
            with torch.no_grad():
                found = [tensor.clone() for tensor in call(trial, signature, inputs).values()]
        except Exception:  # noqa: BLE001 - a forward with other values may raise anything
            return None
        return found

    usual, again = outputs(), outputs()
    if not wanted or usual is None or again is None or not _equal(usual, again):
        return tuple(wanted)

    def act(group: Sequence[str]) -> bool:
        for other in (_not_a_number, _random):
            with _values([tensors[name] for name in group], other):
                changed = outputs()
            if changed is None or not _equal(usual, changed):
                return True
        return False

    found: list[str] = []
    open_groups = [wanted] if act(wanted) else []
    while open_groups and len(found) < MOST_NAMED:
        group = open_groups.pop(0)
        if len(group) == 1:
            found += group
            continue
        half = len(group) // 2
        open_groups += [part for part in (group[:half], group[half:]) if act(part)]
    left = {*found, *(name for group in open_groups for name in group)}
    return tuple(name for name in wanted if name in left)


@contextmanager
def _values(tensors: Sequence[Tensor], other: Callable[[Tensor], Tensor]) -> Iterator[None]:
    kept = [tensor.detach().clone() for tensor in tensors]
    try:
        with torch.no_grad():
            for tensor in tensors:
                tensor.copy_(other(tensor))
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, kept, strict=True):
                tensor.copy_(value)


def _not_a_number(tensor: Tensor) -> Tensor:
    if tensor.is_floating_point() or tensor.is_complex():
        return torch.full_like(tensor, torch.nan)
    return _random(tensor)


def _random(tensor: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(tensor.numel())
    drawn = torch.randn(tensor.shape, generator=generator)
    return (drawn if tensor.is_floating_point() or tensor.is_complex() else drawn > 0).to(tensor.dtype)


def _equal(left: list[Tensor], right: list[Tensor]) -> bool:
    return len(left) == len(right) and all(
        one.shape == other.shape
        and torch.equal(torch.isnan(one), torch.isnan(other))
        and torch.equal(torch.nan_to_num(one), torch.nan_to_num(other))
        for one, other in zip(left, right, strict=True)
    )
