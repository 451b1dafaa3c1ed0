"""What a ``.pt2`` archive holds, read from its records; nothing is unpickled, and one that asks for it is refused.

The layout is that of torch/export/pt2_archive/_package.py: ``models/model.json`` is the program, and two tables in JSON
say in which record each weight and each constant lies, and how. Numbers of dtypes and layouts are those of
torch/_export/serde/schema.py.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from app.targets.artifact import Bytes, MalformedFile, StoredTensor
from app.targets.records import Records

_FOLDERS = {
    "data/weights/": "data/weights/model_weights_config.json",
    "data/constants/": "data/constants/model_constants_config.json",
}
_KNOWN = re.compile(
    r"models/model\.json|archive_format|archive_version|byteorder|version|\.data/version|\.format_version"
    r"|\.storage_alignment|data/sample_inputs/model\.pt|data/(weights|constants)/model_(weights|constants)_config\.json"
    r"|data/weights/weight_\d+|data/constants/tensor_\d+|extra/recast\.json"
)
"""Records that hold no pickles and no code. The sample inputs must be empty."""
DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    10: torch.complex64,
    11: torch.complex128,
    12: torch.bool,
    13: torch.bfloat16,
    28: torch.uint16,
    29: torch.float8_e4m3fn,
    30: torch.float8_e5m2,
    31: torch.float8_e4m3fnuz,
    32: torch.float8_e5m2fnuz,
    34: torch.uint32,
    35: torch.uint64,
}


class Pt2Archive:
    """An archive whose records are all of a kind that is known. Raises MalformedFile for any other."""

    def __init__(self, path: Path) -> None:
        self.records = Records(path)
        strange = [name for name in self.records if not _KNOWN.fullmatch(name)]
        if strange or len(self.records.get("data/sample_inputs/model.pt", b"")):
            raise MalformedFile(f"{path.name} holds records that may be pickles: {', '.join(strange[:5]) or 'samples'}")

    def program(self) -> dict[str, Any]:
        """The program as torch.export wrote it."""
        return self._json("models/model.json")

    def tensors(self) -> Iterator[StoredTensor]:
        """Every tensor under its key; one that several keys share is one, and records that no key names come last."""
        known: set[str] = set()
        for folder, config in _FOLDERS.items():
            found: dict[tuple[Any, ...], list[str]] = {}
            for key, entry in self._table(config).items():
                record = f"{folder}{entry['path_name']}"
                known.add(record)
                found.setdefault((record, *_layout(key, entry)), []).append(key)
            for (record, dtype, size, stride, offset), (key, *aliases) in found.items():
                data = _elements(self.records[record], dtype, size, stride, offset)
                yield StoredTensor(key, size, dtype, data, tuple(aliases))
        for name, content in self.records.items():
            if name not in known and re.fullmatch(r"data/(weights/weight|constants/tensor)_\d+", name):
                yield StoredTensor(name, (content.size,), None, content)

    def _table(self, config: str) -> Mapping[str, Any]:
        table = self._json(config).get("config")
        if not isinstance(table, dict):
            raise MalformedFile(f"{config} is no table of tensors")
        return table

    def _json(self, name: str) -> dict[str, Any]:
        try:
            content = json.loads(self.records[name].tobytes())
        except (KeyError, ValueError) as error:
            raise MalformedFile(f"the archive has no readable {name}") from error
        if not isinstance(content, dict):
            raise MalformedFile(f"{name} is no object")
        return content


def _layout(key: str, entry: Any) -> tuple[torch.dtype, tuple[int, ...], tuple[int, ...], int]:
    try:
        if entry["use_pickle"] is not False:
            raise MalformedFile(f"{key} is stored as a pickle")
        meta = entry["tensor_meta"]
        sizes, strides = (tuple(int(item["as_int"]) for item in meta[name]) for name in ("sizes", "strides"))
        return DTYPES[meta["dtype"]], sizes, strides, int(meta["storage_offset"]["as_int"])
    except (KeyError, TypeError, ValueError) as error:
        raise MalformedFile(f"{key} has no readable layout: {type(error).__name__}: {error}") from error


def _elements(record: Bytes, dtype: torch.dtype, size: Sequence[int], stride: Sequence[int], offset: int) -> Bytes:
    """The tensor's bytes in row-major order; a copy only where its memory is not already that."""
    item, count = dtype.itemsize, int(np.prod(size, dtype=np.int64))
    reach = offset + sum((extent - 1) * step for extent, step in zip(size, stride, strict=True)) + 1
    if min((offset, *size, *stride)) < 0 or (count and reach * item > record.size):
        raise MalformedFile(f"a tensor of size {tuple(size)} leaves its record")
    start = offset * item
    dense = np.cumprod((1, *reversed(size[1:])))[::-1]
    if all(extent == 1 or step == expected for extent, step, expected in zip(size, stride, dense, strict=False)):
        if not start and record.size > count * item:
            raise MalformedFile(f"a record holds {record.size} bytes for a tensor of {count * item}")
        return record[start : start + count * item]
    strides = (*(step * item for step in stride), 1)
    elements = np.lib.stride_tricks.as_strided(record[start:], (*size, item), strides, writeable=False)
    return np.ascontiguousarray(elements).reshape(-1)
