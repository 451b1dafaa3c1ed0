"""Which uploaded tensors each tensor of a loaded module was made of.

What a library or a module does to keys while it loads (renaming in hooks, stacking experts, splitting a fused
projection) is not modelled rule by rule: it is watched. Loading assigns the uploaded memory itself, so a tensor that
was only renamed is found again by its address; one that was rearranged is followed through the torch functions that
made it, and then held against its sources: it must hold exactly their elements, bit for bit, in whatever order.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from app.domain.checkpoint import KeyConversion

Address = tuple[int, torch.dtype, tuple[int, ...], tuple[int, ...]]
"""Where a tensor's elements lie: first byte, dtype, shape, strides."""

_CHUNK = 1 << 20
"""Elements hashed at a time, so that the hash needs some megabytes and not a copy of the tensor."""
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Origins(TorchFunctionMode):
    """While active, follows the tensors of a state dict through every torch function that reads them."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._names: dict[Address, frozenset[str]] = {}
        self._kept: list[Tensor] = []  # an address means something only while its memory is held
        sharing: dict[Address, list[str]] = {}
        for name, tensor in tensors.items():
            if _has_memory(tensor):
                sharing.setdefault(address(tensor), []).append(name)
        for names in sharing.values():
            self._record(tensors[names[0]], frozenset(names))

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if func.__name__ in ("__setitem__", "copy_") and isinstance(args[0], Tensor):
            made.append(args[0])
        if made:
            sources = self.of(leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
            for tensor in made:
                self._record(tensor, sources)
        return result

    def of(self, tensors: Iterable[Tensor]) -> frozenset[str]:
        """Names of the uploaded tensors that these hold or were made of."""
        found = {self._names.get(address(tensor), frozenset()) for tensor in tensors if _has_memory(tensor)}
        return frozenset().union(*found)

    def _record(self, tensor: Tensor, names: frozenset[str]) -> None:
        if names and _has_memory(tensor):
            place = address(tensor)
            if place not in self._names:
                self._kept.append(tensor)
            self._names[place] = self._names.get(place, frozenset()) | names


@dataclass(frozen=True)
class Accounted:
    """How the tensors of a module follow from an upload.

    ``tensors`` holds, under the module's names, what the upload brought for each, in the upload's own dtype.
    ``changed`` names the module's tensors whose elements are not those of their sources.
    ``unplaced`` are the uploaded names that nothing of the module was made of.
    """

    tensors: dict[str, Tensor]
    conversions: tuple[KeyConversion, ...]
    changed: tuple[str, ...]
    unplaced: tuple[str, ...]


def account(uploaded: Mapping[str, Tensor], held: Mapping[str, Tensor], origins: Origins) -> Accounted:
    """Trace every tensor of ``held`` (the module's, just loaded and not yet cast) back to ``uploaded``."""
    tensors, renamed, used = _identical(uploaded, held)
    conversions = [KeyConversion(uploaded=(name,), loaded=(key,)) for name, key in renamed.items() if name != key]
    changed: list[str] = []
    for names, keys in _groups({key: origins.of([held[key]]) for key in held if key not in used}):
        used |= {*names, *keys}
        if not _same_elements([uploaded[name] for name in names], [held[key] for key in keys]):
            changed += keys
            continue
        tensors |= {key: held[key] for key in keys}
        if names != keys:
            conversions.append(KeyConversion(uploaded=tuple(names), loaded=tuple(keys)))
    placed = {*renamed, *(name for conversion in conversions for name in conversion.uploaded), *used}
    unplaced = tuple(name for name in uploaded if name not in placed)
    return Accounted(tensors, tuple(conversions), tuple(changed), unplaced)


def _identical(
    uploaded: Mapping[str, Tensor], held: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, str], set[str]]:
    """Tensors placed as they are, by module key; uploaded name to module key; and the module's keys so explained."""
    places: dict[Address, list[str]] = {}
    for key, tensor in held.items():
        if _has_memory(tensor):
            places.setdefault(address(tensor), []).append(key)
    renamed = {
        name: name
        for name, tensor in uploaded.items()
        if name in held and (tensor.numel() == 0 or name in places.get(address(tensor), ()))
    }
    taken = set(renamed)
    for name, tensor in uploaded.items():
        free = [key for key in places.get(address(tensor), ()) if key not in taken] if _has_memory(tensor) else []
        if name not in renamed and free:
            renamed[name] = free[0]
            taken.add(free[0])
    explained = {key for name in renamed for key in places.get(address(uploaded[name]), ())} | taken
    return {key: uploaded[name] for name, key in renamed.items()}, renamed, explained


def _groups(sources: Mapping[str, frozenset[str]]) -> list[tuple[list[str], list[str]]]:
    """(uploaded names, module keys) that belong together because a tensor of the one was made of the other."""
    group_of: dict[str, list[str]] = {}
    for key, names in sources.items():
        joined = list({id(group): group for name in names if (group := group_of.get(name))}.values())
        merged = [key, *(other for group in joined for other in group)]
        for other in merged:
            for name in sources[other]:
                group_of[name] = merged
    groups = {id(group): group for group in group_of.values()}.values()
    order = {key: position for position, key in enumerate(sources)}
    return [
        (sorted(frozenset().union(*(sources[key] for key in keys))), sorted(keys, key=order.__getitem__))
        for keys in groups
    ]


def address(tensor: Tensor) -> Address:
    return tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()


def _has_memory(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_meta and tensor.numel() > 0


def _same_elements(left: list[Tensor], right: list[Tensor]) -> bool:
    """Whether both hold the same elements equally often, by a hash that does not depend on their order."""
    return len({tensor.dtype for tensor in (*left, *right)}) == 1 and _element_hash(left) == _element_hash(right)


def _element_hash(tensors: list[Tensor]) -> tuple[int, int]:
    """Number of elements, and the sum of a 64-bit mix of each element's bits, modulo 2**64.

    The mix is the finaliser of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
    """
    total = 0
    for tensor in tensors:
        real = torch.view_as_real(tensor) if tensor.dtype.is_complex else tensor
        flat = real.detach().reshape(-1).view(_BITS[real.element_size()]).numpy()
        for start in range(0, flat.size, _CHUNK):
            mixed = flat[start : start + _CHUNK].astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            total += int((mixed ^ (mixed >> np.uint64(31))).sum(dtype=np.uint64))
    return sum(tensor.numel() for tensor in tensors), total % 2**64
