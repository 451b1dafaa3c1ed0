"""Reading a torch.distributed.checkpoint directory: ``.metadata``, and the ``.distcp`` files that hold the chunks.

``.metadata`` pickles a Metadata (torch/distributed/checkpoint/metadata.py); each chunk is a torch.save archive within
one of the files, at the place that ``storage_data`` tells. None of those classes is imported.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from app.conversion.checkpoint.names import check_key, shown
from app.conversion.checkpoint.pickle_machine import MAX_PICKLE
from app.conversion.checkpoint.pickle_values import Made, OtherKey
from app.conversion.checkpoint.stored_tensors import Assembled, Stored, TensorView, Unreadable, are_sizes
from app.conversion.checkpoint.torch_files import Contents, Pickles, read_zip
from app.conversion.checkpoint.torch_vocabulary import TORCH
from app.conversion.checkpoint.unwrap import MAX_DEPTH, is_no_weight
from app.conversion.checkpoint.zipped_directory import ZippedDirectory
from app.domain.errors import CorruptCheckpoint, PayloadTooLarge

METADATA = ".metadata"
_PLACE = "torch.distributed.checkpoint"
_CLASSES = frozenset(
    {
        *(f"{_PLACE}.metadata.{name}" for name in ("Metadata", "MetadataIndex", "StorageMeta", "_MEM_FORMAT_ENCODING")),
        *(f"{_PLACE}.metadata.{name}StorageMetadata" for name in ("Tensor", "Bytes", "Chunk")),
        f"{_PLACE}.metadata.TensorProperties",
        f"{_PLACE}.filesystem._StorageInfo",
    }
)
_VOCABULARY = replace(TORCH, inert=lambda name: name in _CLASSES or TORCH.inert(name))


@dataclass(frozen=True)
class _Chunk:
    name: str
    offsets: tuple[int, ...]
    path: str
    start: int
    length: int


def metadata_of(names: list[str]) -> str | None:
    """The metadata among the files of a zip; None without one."""
    return next((name for name in names if name.rpartition("/")[2] == METADATA), None)


def read_distributed(directory: ZippedDirectory, metadata: str) -> Contents:
    """The state dict, nested as it was saved. Optimizer state and the like is left where it is.

    Raises CorruptCheckpoint when metadata and files disagree, PayloadTooLarge for metadata beyond the bounds of a
    pickle, and what read_zip does.
    """
    file = directory.file(metadata)
    if file.size > MAX_PICKLE:
        raise PayloadTooLarge(f"{METADATA} is longer than {MAX_PICKLE >> 20} MiB.")
    top = _fields(Pickles(file.read(), vocabulary=_VOCABULARY).read())
    described, paths = top.get("state_dict_metadata"), top.get("planner_data")
    if not isinstance(described, dict) or not isinstance(top.get("storage_data"), dict):
        raise CorruptCheckpoint(f"{METADATA} describes no tensors.")
    folder = metadata.removesuffix(METADATA)
    chunks = _chunks(top["storage_data"])
    root: dict[str, Any] = {}
    for name, entry in described.items():
        if not isinstance(name, str):
            raise CorruptCheckpoint(f"{METADATA} describes a tensor without a name.")
        path = _path(name, paths)
        if not isinstance(entry, Made) or not entry.by.endswith(".TensorStorageMetadata") or is_no_weight(path[0]):
            continue
        _place(root, path, _tensor(directory, folder, _fields(entry), chunks.get(name, [])))
    return Contents(root, (f"read from a distributed checkpoint of {len(root)} entries",))


def _fields(made: object) -> dict[str, Any]:
    state = made.state if isinstance(made, Made) else None
    if not isinstance(state, dict):
        raise CorruptCheckpoint(f"{METADATA} holds something else than torch.distributed.checkpoint writes.")
    return state


def _chunks(places: Mapping[Any, Any]) -> dict[str, list[_Chunk]]:
    """Where each tensor's chunks are, by its name. Keys of ``places`` are MetadataIndex, its values _StorageInfo."""
    found: dict[str, list[_Chunk]] = {}
    for key, value in places.items():
        index, info = _fields(getattr(key, "value", None)), _fields(value)
        name, offsets, path = index.get("fqn"), index.get("offset") or (), info.get("relative_path")
        start, length = info.get("offset", -1), info.get("length", -1)
        if not (isinstance(name, str) and isinstance(path, str) and are_sizes(offsets) and are_sizes((start, length))):
            raise CorruptCheckpoint(f"{METADATA} places a tensor nowhere.")
        if info.get("transform_descriptors"):
            raise CorruptCheckpoint(f"{shown(name)!r} is compressed within the checkpoint.")
        found.setdefault(check_key(name), []).append(_Chunk(name, tuple(offsets), check_key(path), start, length))
    _check_apart([chunk for chunks in found.values() for chunk in chunks])
    return found


def _check_apart(chunks: list[_Chunk]) -> None:
    """No byte is of two chunks, as it is written, so that reading all of them is reading the files once."""
    reached: dict[str, int] = {}
    for chunk in sorted(chunks, key=lambda chunk: (chunk.path, chunk.start)):
        if chunk.start < reached.get(chunk.path, 0):
            raise CorruptCheckpoint(
                f"A part of {shown(chunk.name)!r} is also one of another tensor.", tensor=chunk.name
            )
        reached[chunk.path] = chunk.start + chunk.length


def _path(name: str, paths: object) -> tuple[str, ...]:
    """The keys that lead to a tensor in what was saved."""
    path = paths.get(name) if isinstance(paths, dict) else None
    if not isinstance(path, tuple) or not 0 < len(path) <= MAX_DEPTH:
        return (name,)
    return tuple(check_key(part if isinstance(part, str) else str(OtherKey(part))) for part in path)


def _place(root: dict[str, Any], path: tuple[str, ...], tensor: Stored) -> None:
    for part in path[:-1]:
        root = root.setdefault(part, {})
        if not isinstance(root, dict):
            raise CorruptCheckpoint(f"{METADATA} puts a tensor into a tensor.")
    root[path[-1]] = tensor


def _tensor(directory: ZippedDirectory, folder: str, entry: dict[str, Any], chunks: list[_Chunk]) -> Stored:
    shape = entry.get("size")
    if not isinstance(shape, tuple) or not are_sizes(shape) or not chunks:
        raise CorruptCheckpoint(f"{METADATA} describes a tensor of which no file holds a part.")
    parts: list[tuple[tuple[int, ...], TensorView]] = []
    for chunk in chunks:
        held = read_zip(directory.file(folder + chunk.path).part(chunk.start, chunk.length)).root
        if isinstance(held, Unreadable):
            return held
        if not isinstance(held, TensorView):
            raise CorruptCheckpoint(f"A part of {shown(chunk.name)!r} is no tensor.", tensor=chunk.name)
        parts.append((chunk.offsets or (0,) * len(shape), held))
    return _joined(chunks[0].name, shape, parts)


def _joined(name: str, shape: tuple[int, ...], parts: list[tuple[tuple[int, ...], TensorView]]) -> Stored:
    """The whole of parts that follow one another along one axis. Raises CorruptCheckpoint unless they make it up."""
    parts = sorted(parts, key=lambda part: part[0])  # no dict: tuples can be made that have one and the same hash
    begin, first = parts[0]
    if begin == (0,) * len(shape) and first.shape == shape and len(parts) == 1:
        return first
    known = begin == (0,) * len(shape) == (0,) * len(first.shape)
    axes = [axis for axis in range(len(shape)) if known and first.shape[axis] != shape[axis]]
    if len(axes) != 1:
        return Unreadable("spread over files along several axes", "Gather it before saving (full_state_dict).")
    axis, reached, ordered = axes[0], 0, []
    for offsets, part in parts:
        rest = (*part.shape[:axis], shape[axis], *part.shape[axis + 1 :])
        expected = tuple(reached if place == axis else 0 for place in range(len(shape)))
        if offsets != expected or rest != shape or part.dtype is not first.dtype:
            raise CorruptCheckpoint(f"The parts of {shown(name)!r} do not make up the whole.", tensor=name)
        reached += part.shape[axis]
        ordered.append(part)
    if reached != shape[axis]:
        raise CorruptCheckpoint(f"The parts of {shown(name)!r} do not make up the whole.", tensor=name)
    return Assembled(tuple(ordered), axis)
