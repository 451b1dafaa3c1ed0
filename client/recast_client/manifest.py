"""The manifest of a weights file: keys, shapes and dtypes of its state dict, read without weights and without torch.

Nothing of the file is imported or run: what a pickle names is replaced by inert stand-ins.
"""

import io
import json
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

Manifest = dict[str, dict[str, Any]]
"""Key to {"shape": [...], "dtype": "float32"}, as POST /v1/preflight takes it."""

LONGEST_HEADER = 100 << 20
"""Bytes; the safetensors library's own bound."""
LARGEST_PICKLE = 256 << 20
"""Bytes of the pickle of a zip of torch.save, in which no weights are."""
DEEPEST = 6
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""First pickle of files of torch.save before 1.6 (torch/serialization.py)."""
STORAGES = {
    **{"Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64"},
    **{"Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool"},
    **{"ComplexFloat": "complex64", "ComplexDouble": "complex128"},
}
"""dtype of torch.<name>Storage."""
TENSORS = {"_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"}


class NoManifest(ValueError):
    """The file is none whose header this reader knows; the service may read it all the same."""


def read_manifest(path: str | Path) -> Manifest:
    """Keys, shapes and dtypes of a .safetensors, .pt or .pth file. Raises NoManifest, OSError."""
    path = Path(path)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return _state_dict(_unpickled(_pickle_of(archive)))
        with path.open("rb") as file:
            start = file.read(8)
            file.seek(0)
            if start[:1] == b"\x80":
                return _state_dict(_legacy(file))
            return _safetensors(file)
    except (pickle.UnpicklingError, zipfile.BadZipFile, *_MALFORMED) as error:
        raise NoManifest(f"{path.name} has no header that can be read without torch: {error}") from error


_MALFORMED = (EOFError, KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError, MemoryError)


def _safetensors(file: IO[bytes]) -> Manifest:
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= LONGEST_HEADER:
        raise NoManifest("it is neither of torch.save nor safetensors")
    header = json.loads(file.read(length))
    return {
        key: {"shape": entry["shape"], "dtype": entry["dtype"]}
        for key, entry in header.items()
        if key != "__metadata__"
    }


def _pickle_of(archive: zipfile.ZipFile) -> bytes:
    found = [info for info in archive.infolist() if info.filename.rpartition("/")[2] == "data.pkl"]
    if len(found) != 1 or found[0].file_size > LARGEST_PICKLE:
        raise NoManifest("the zip is not one of torch.save")
    return archive.read(found[0])


def _legacy(file: IO[bytes]) -> Any:
    if _Inert(file).load() != LEGACY_MAGIC:
        raise NoManifest("it is a pickle, and none of torch.save")
    _Inert(file).load()  # the protocol's version
    _Inert(file).load()  # the system's sizes
    return _Inert(file).load()


def _unpickled(content: bytes) -> Any:
    return _Inert(io.BytesIO(content)).load()


class _Tensor:
    """Shape and dtype where a tensor stood."""

    def __init__(self, dtype: Any, shape: Any) -> None:
        self.dtype, self.shape = str(dtype), [int(size) for size in shape]


class _StandIn:
    """An instance of whatever class or function the pickle named: takes everything and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> "_StandIn":
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        self.state: Any = None

    def __call__(self, *_: Any, **__: Any) -> "_StandIn":
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, value: Any) -> None: ...

    def extend(self, values: Any) -> None: ...

    def __reduce__(self) -> Any:
        raise TypeError("a stand-in is not written")


class _Inert(pickle.Unpickler):
    """Reads a pickle of torch.save; no name in it is ever looked up."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch._utils" and name in TENSORS:
            return lambda storage, _offset, shape, *rest: _Tensor(_dtype(storage, rest), shape)
        if module == "torch._utils" and name in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
            return lambda data, *_: data
        if module in ("torch", "torch.storage") and name.endswith("Storage"):
            return STORAGES.get(name.removesuffix("Storage"), name)
        if module == "torch":
            return f"torch.{name}"
        return type(name, (_StandIn,), {})

    def persistent_load(self, pid: Any) -> Any:
        return pid[1] if isinstance(pid, tuple) and len(pid) > 1 else pid


def _dtype(storage: Any, rest: tuple[Any, ...]) -> str:
    """Of the storage; untyped ones have it as the tensor's own last argument."""
    told = [value for value in rest if isinstance(value, str) and value.startswith("torch.")]
    return told[-1].removeprefix("torch.") if told else str(storage)


def _state_dict(document: Any) -> Manifest:
    """The mapping of the file that has most tensors, and what is in it."""
    found = max(_mappings(document, 0), key=len, default={})
    if not found:
        raise NoManifest("no state dict is in it")
    return {key: {"shape": tensor.shape, "dtype": tensor.dtype} for key, tensor in found.items()}


def _mappings(value: Any, depth: int) -> Iterator[dict[str, _Tensor]]:
    if not isinstance(value, Mapping) or depth > DEEPEST:
        return
    yield {key: tensor for key, tensor in value.items() if isinstance(key, str) and isinstance(tensor, _Tensor)}
    for inner in value.values():
        yield from _mappings(inner, depth + 1)
