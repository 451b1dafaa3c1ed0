"""From a file to its state dict and an inspection of it."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from app.conversion.checkpoint.safetensors_file import read_safetensors
from app.conversion.checkpoint.torch_files import read_legacy, read_zip
from app.conversion.checkpoint.unwrap import unwrap
from app.domain.checkpoint import CheckpointFormat, CheckpointInspection, TensorInfo
from app.domain.checkpoint_format import recognise
from app.domain.errors import CorruptCheckpoint, PayloadTooLarge, UnsupportedTensor

_READERS: dict[CheckpointFormat, Callable[[Path], tuple[Any, tuple[str, ...]]]] = {
    "torch-zip": read_zip,
    "torch-legacy": read_legacy,
    "safetensors": read_safetensors,
}

MAX_TENSORS = 100_000
"""Tensors of a state dict; the largest published models have some thousands."""
EXPANDED_LIMIT = 1 << 26
"""Bytes that a tensor may hold beyond its storage, by strides of 0; more is an attack on memory, not a weight."""


@dataclass(frozen=True)
class OpenedCheckpoint:
    inspection: CheckpointInspection
    state_dict: dict[str, torch.Tensor]
    """Detached CPU tensors in the file's order; memory-mapped for torch-zip and safetensors."""
    versions: Mapping[str, Any] = field(default_factory=dict)
    """Module versions by module path (the state dict's ``_metadata``); empty when the file has none."""


def open_checkpoint(path: Path, checkpoint_key: str = "auto") -> OpenedCheckpoint:
    """Read a checkpoint without running anything in it. Values stay on disk until used, where the format permits.

    Raises EmptyFile, UnsupportedFormat, CorruptCheckpoint, AlreadyTorchScript, PickledModule, UnsafeCheckpoint,
    PayloadTooLarge (too many tensors), UnsupportedTensor, NoStateDict, AmbiguousCheckpoint.
    """
    kind = recognise(path)
    loaded, notes = _READERS[kind](path)
    found, candidates = unwrap(loaded, checkpoint_key)
    if len(found.tensors) > MAX_TENSORS:
        raise PayloadTooLarge(
            f"The state dict holds {len(found.tensors):,} tensors; at most {MAX_TENSORS:,} are read.",
            hint="Save what is one parameter of the model as one tensor.",
        )
    for name, tensor in found.tensors.items():
        _check(name, tensor)
    if found.skipped:
        notes = (*notes, f"entries that are not tensors were left out: {', '.join(found.skipped[:10])}")
    tensors = _describe(found.tensors)
    inspection = CheckpointInspection(
        format=kind,
        bytes=path.stat().st_size,
        nesting=found.path,
        candidates=candidates,
        tensors=tensors,
        parameter_count=sum(t.numel() for name, t in found.tensors.items() if not name.endswith("num_batches_tracked")),
        tensor_bytes=sum(info.bytes for info in tensors if info.tied_to is None),
        dtypes=dict(Counter(info.dtype for info in tensors)),
        notes=notes,
    )
    return OpenedCheckpoint(inspection, found.tensors, found.versions)


def _check(name: str, tensor: torch.Tensor) -> None:
    if tensor.is_quantized:
        raise UnsupportedTensor(f"{name!r} is quantized.", hint="Save the weights before quantization.", tensor=name)
    if tensor.layout != torch.strided:
        raise UnsupportedTensor(f"{name!r} is sparse ({tensor.layout}).", hint="Save tensor.to_dense().", tensor=name)
    if tensor.device.type != "cpu":
        raise UnsupportedTensor(f"{name!r} has no data (device {tensor.device}).", tensor=name)
    if tensor.is_neg() or tensor.is_conj():
        raise UnsupportedTensor(
            f"{name!r} is a lazy view.", hint="Save tensor.resolve_conj().resolve_neg().", tensor=name
        )
    declared = tensor.numel() * tensor.element_size()
    if declared > tensor.untyped_storage().nbytes() + EXPANDED_LIMIT:
        raise CorruptCheckpoint(
            f"{name!r} declares {declared} bytes over a storage of {tensor.untyped_storage().nbytes()}.", tensor=name
        )


def _describe(tensors: Mapping[str, torch.Tensor]) -> tuple[TensorInfo, ...]:
    first: dict[tuple[int, torch.dtype, torch.Size, tuple[int, ...]], str] = {}
    described = []
    for name, tensor in tensors.items():
        tied = None
        if tensor.numel():
            place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
            tied = first.setdefault(place, name)
        described.append(
            TensorInfo(
                name=name,
                shape=tuple(tensor.shape),
                dtype=str(tensor.dtype).removeprefix("torch."),
                bytes=tensor.numel() * tensor.element_size(),
                tied_to=None if tied in (None, name) else tied,
            )
        )
    return tuple(described)
