"""From a file to its state dict and an inspection of it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from app.conversion.checkpoint.class_names import class_names
from app.conversion.checkpoint.distributed import metadata_of, read_distributed
from app.conversion.checkpoint.extent import Extent
from app.conversion.checkpoint.programs import program_of, read_pt2, read_torchscript
from app.conversion.checkpoint.safetensors_file import read_safetensors
from app.conversion.checkpoint.sharded import index_of, read_sharded
from app.conversion.checkpoint.stored_tensors import MAX_TENSORS, MappedFile, Memory
from app.conversion.checkpoint.torch_files import Contents, read_legacy, read_zip
from app.conversion.checkpoint.torch_vocabulary import layers_in, refusal
from app.conversion.checkpoint.unwrap import Found, unwrap
from app.conversion.checkpoint.zip_layout import members_of, read_layout
from app.conversion.checkpoint.zipped_directory import ZippedDirectory
from app.domain.checkpoint import CheckpointFormat, CheckpointInspection, TensorInfo
from app.domain.checkpoint_format import recognise
from app.domain.errors import NoStateDict, PayloadTooLarge


@dataclass(frozen=True)
class OpenedCheckpoint:
    inspection: CheckpointInspection
    state_dict: dict[str, torch.Tensor]
    """Detached CPU tensors in the file's order; memory-mapped."""
    versions: Mapping[str, Any] = field(default_factory=dict)
    """Module versions by module path (the state dict's ``_metadata``); empty when the file has none."""
    class_names: tuple[str, ...] = ()
    """Names of the model's classes, where they were saved beside the weights."""
    mapped: MappedFile | None = None
    """The file in memory, where tensors are views of it."""


def open_checkpoint(path: Path, checkpoint_key: str = "auto") -> OpenedCheckpoint:
    """Read a checkpoint without running anything in it. Values stay on disk until used, where the format permits.

    Raises EmptyFile, UnsupportedFormat, CorruptCheckpoint, AlreadyTorchScript, PickledModule, UnsafeCheckpoint,
    PayloadTooLarge (too many tensors), UnsupportedTensor, NoStateDict, AmbiguousCheckpoint.
    """
    with TemporaryDirectory(prefix="recast-unpacked-") as scratch:
        return _opened(path, checkpoint_key, Path(scratch))


def _opened(path: Path, checkpoint_key: str, scratch: Path) -> OpenedCheckpoint:
    kind, contents = _read(Extent.of(path), recognise(path), scratch)
    found, candidates = _found(contents.root, checkpoint_key)
    if len(found.tensors) > MAX_TENSORS:
        raise PayloadTooLarge(
            f"The state dict holds {len(found.tensors):,} tensors; at most {MAX_TENSORS:,} are read.",
            hint="Save what is one parameter of the model as one tensor.",
        )
    memory, notes = Memory(), contents.notes
    state_dict = {name: memory.tensor(name, stored) for name, stored in found.tensors.items()}
    if found.skipped:
        notes = (*notes, f"entries that are not tensors were left out: {', '.join(found.skipped)}")
    tensors = _describe(state_dict)
    inspection = CheckpointInspection(
        format=kind,
        bytes=path.stat().st_size,
        nesting=found.path,
        candidates=candidates,
        tensors=tensors,
        parameter_count=sum(t.numel() for name, t in state_dict.items() if not name.endswith("num_batches_tracked")),
        tensor_bytes=sum(info.bytes for info in tensors if info.tied_to is None),
        dtypes=dict(Counter(info.dtype for info in tensors)),
        notes=notes,
    )
    return OpenedCheckpoint(inspection, state_dict, found.versions, class_names(contents.root), memory.mapping(path))


def _found(root: object, checkpoint_key: str) -> tuple[Found, tuple[str, ...]]:
    """As unwrap. Raises PickledModule for a model that was pickled, unless the client says where else the weights are.

    A loss or an activation among the hyper-parameters is no model: it has no weights, or they are not the model's.
    """
    layers = layers_in(root)
    models = [name for name, has_weights in layers.items() if has_weights]
    if models and checkpoint_key == "auto":
        raise refusal(models)
    try:
        return unwrap(root, checkpoint_key)
    except NoStateDict as error:
        if layers:
            raise refusal(list(layers)) from error
        raise


def _read(file: Extent, kind: CheckpointFormat, scratch: Path) -> tuple[CheckpointFormat, Contents]:
    if kind == "safetensors":
        return kind, read_safetensors(file)
    if kind == "torch-legacy":
        return kind, read_legacy(file)
    members = members_of(file)
    names = [member.filename for member in members]
    program = program_of(names)
    if program is not None:
        layout = read_layout(file, program=True)
        return program, read_torchscript(layout) if program == "torchscript" else read_pt2(layout)
    index = index_of(names)
    if index is not None:
        return "sharded", read_sharded(ZippedDirectory(file, members, scratch), index)
    metadata = metadata_of(names)
    if metadata is not None:
        return "distributed", read_distributed(ZippedDirectory(file, members, scratch), metadata)
    return kind, read_zip(file)


def _describe(tensors: Mapping[str, torch.Tensor]) -> tuple[TensorInfo, ...]:
    first: dict[str, str] = {}
    described = []
    for name, tensor in tensors.items():
        tied = None
        if tensor.numel():
            # a text, as of TensorView.place
            place = f"{tensor.data_ptr()} {tensor.dtype} {tuple(tensor.shape)} {tensor.stride()}"
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
