"""OpenVINO's intermediate representation, read from its two files: layers in XML, the constants in the .bin beside it.

Attributes are those of https://docs.openvino.ai (Documentation of the IR format): a layer of type Const names the
element type, the shape, and where in the .bin its bytes lie. Neither OpenVINO nor what wrote the files takes part.
"""

from collections.abc import Iterator
from math import prod
from mmap import ACCESS_READ, mmap
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import torch

from app.targets.artifact import Bytes, MalformedFile, StoredTensor

_DTYPES = {
    "f64": torch.float64,
    "f32": torch.float32,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "f8e4m3": torch.float8_e4m3fn,
    "f8e5m2": torch.float8_e5m2,
    "i64": torch.int64,
    "i32": torch.int32,
    "i16": torch.int16,
    "i8": torch.int8,
    "u64": torch.uint64,
    "u32": torch.uint32,
    "u16": torch.uint16,
    "u8": torch.uint8,
    "boolean": torch.bool,
}
"""torch's dtype of each element type that has one."""


class OpenVinoFile:
    """The graph and its constants. Raises MalformedFile.

    ``tensors``: every constant by its layer's name; those of one place and form are one. Bytes of the .bin that no
    constant has must be zeros.
    """

    def __init__(self, path: Path) -> None:
        content = path.read_bytes()
        if b"<!" in content:
            raise MalformedFile(f"{path.name} declares entities, which no graph needs")
        try:
            self.net = ElementTree.fromstring(content)
            self._data = _mapped(path.with_suffix(".bin"))
        except (ElementTree.ParseError, OSError, ValueError) as error:
            raise MalformedFile(f"{path.name} is no graph of OpenVINO: {error}") from error
        self.tensors = self._read()

    @property
    def layers(self) -> Iterator[ElementTree.Element]:
        """Every layer, those in bodies of loops and branches too."""
        return self.net.iter("layer")

    def _read(self) -> tuple[StoredTensor, ...]:
        found: dict[tuple[int, str, tuple[int, ...]], list[str]] = {}
        for layer in self.layers:
            if layer.get("type") == "Const":
                entry = layer.find("data")
                if entry is None:
                    raise MalformedFile(f"the constant {layer.get('name')} lies nowhere")
                offset, kind, shape = _placed(entry)
                found.setdefault((offset, kind, shape), []).append(layer.get("name", ""))
        stored = [self._stored(names, *place) for place, names in found.items()]
        self._refuse_hidden({(place[0], place[0] + tensor.nbytes) for place, tensor in zip(found, stored, strict=True)})
        return tuple(stored)

    def _stored(self, names: list[str], offset: int, kind: str, shape: tuple[int, ...]) -> StoredTensor:
        dtype = _DTYPES.get(kind)
        if dtype is None:
            raise MalformedFile(f"{names[0]} has elements of type {kind}")
        end = offset + prod(shape) * dtype.itemsize
        if min((offset, *shape)) < 0 or end > self._data.size:
            raise MalformedFile(f"{names[0]} leaves the file")
        first, *aliases = names
        return StoredTensor(first, shape, dtype, self._data[offset:end], tuple(aliases))

    def _refuse_hidden(self, spans: set[tuple[int, int]]) -> None:
        position = 0
        for start, end in (*sorted(spans), (self._data.size, self._data.size)):
            if self._data[position:start].any():
                raise MalformedFile(f"bytes {position} to {start} of the .bin belong to no constant")
            position = max(position, end)

    @property
    def axes(self) -> dict[str, tuple[int | str, ...]]:
        """Each input's shape as written; sizes that may vary have no name."""
        return {
            layer.get("name", ""): tuple(
                "?" if (size := dim.text or "") == "-1" else int(size) for dim in layer.iterfind("output/port/dim")
            )
            for layer in self.net.iterfind("layers/layer")
            if layer.get("type") == "Parameter"
        }


def _placed(entry: ElementTree.Element) -> tuple[int, str, tuple[int, ...]]:
    """Offset, element type and shape of a constant; its size must be what both need."""
    try:
        kind, shape = entry.attrib["element_type"], tuple(map(int, filter(None, entry.attrib["shape"].split(","))))
        offset, size = int(entry.attrib["offset"]), int(entry.attrib["size"])
    except (KeyError, ValueError) as error:
        raise MalformedFile(f"a constant has no readable place: {error}") from error
    if kind in _DTYPES and size != prod(shape) * _DTYPES[kind].itemsize:
        raise MalformedFile(f"a constant of shape {shape} stores {size} bytes")
    return offset, kind, shape


def _mapped(path: Path) -> Bytes:
    with path.open("rb") as file:
        return np.frombuffer(mmap(file.fileno(), 0, access=ACCESS_READ), np.uint8)
