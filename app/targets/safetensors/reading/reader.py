"""The reading half of target ``safetensors``: the file's own tensors put into the architecture's module, and run."""

import json
from collections.abc import Mapping, Sequence
from mmap import ACCESS_COPY, mmap
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from app.architectures.calling import EagerModel, bind, copied, flatten
from app.domain.text import message_of
from app.targets.artifact import ArtifactRefused, GraphFacts, MalformedFile, ModuleValue, StoredTensor
from app.targets.reader import Reader

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}
"""torch's dtype by its name in the format."""


def read_safetensors(path: Path) -> tuple[tuple[StoredTensor, ...], Mapping[str, str]]:
    """Every tensor of the file, memory-mapped for itself alone, and its metadata.

    Raises MalformedFile for a header that is none, and for tensors that overlap, leave gaps or leave the file.
    """
    try:
        with path.open("rb") as file:
            whole = np.frombuffer(mmap(file.fileno(), 0, access=ACCESS_COPY), np.uint8)
        length = int.from_bytes(whole[:8].tobytes(), "little")
        header: dict[str, Any] = json.loads(whole[8 : 8 + length].tobytes())
        metadata = header.pop("__metadata__", {})
        content, position, found = whole[8 + length :], 0, []
        for name, entry in sorted(header.items(), key=lambda item: tuple(item[1]["data_offsets"])):
            dtype, shape, (start, end) = DTYPES[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"]
            expected = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
            if start != position or end - start != expected or end > content.size:
                raise MalformedFile(f"{name} does not lie where the tensor before it ends")
            found.append(StoredTensor(name, shape, dtype, content[start:end]))
            position = end
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, MalformedFile):
            raise
        raise MalformedFile(f"{path.name} is no safetensors file: {type(error).__name__}: {error}") from error
    if position != content.size:
        raise MalformedFile(f"{path.name} holds {content.size - position} bytes that no tensor has")
    return tuple(found), metadata


class LoadedWeights:
    """The module as it runs with the tensors of a file in the place of its own."""

    names_outputs = False

    def __init__(self, path: Path, model: EagerModel) -> None:
        try:
            stored, metadata = read_safetensors(path)
        except MalformedFile as refusal:
            raise ArtifactRefused(str(refusal)) from refusal
        tensors = {tensor.name: _tensor(tensor) for tensor in stored}
        tied = {other: tensors[key] for other, key in metadata.items() if key in tensors}
        self._model, self._tensors = model, {**tensors, **tied}
        missing = [
            key
            for key, value in model.module.state_dict().items()
            if isinstance(value, Tensor) and key not in self._tensors
        ]
        if missing:
            raise ArtifactRefused(f"the file lacks {', '.join(missing[:5])}")

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        args, kwargs = bind(self._model, {name: value.clone() for name, value in inputs.items()})
        try:
            with torch.inference_mode():
                result = torch.func.functional_call(self._model.module, self._tensors, args, kwargs, tie_weights=False)
        except Exception as refusal:
            raise ArtifactRefused(message_of(refusal)) from refusal
        return copied(flatten(result, self._model.signature))

    def facts(self) -> GraphFacts:
        return GraphFacts(constants=None)

    def intermediates(self, values: Sequence[ModuleValue], inputs: Mapping[str, Tensor]) -> Sequence[Sequence[Tensor]]:
        return [[] for _ in values]


def _tensor(stored: StoredTensor) -> Tensor:
    assert stored.dtype is not None
    if not stored.data.size:
        return torch.empty(stored.dims, dtype=stored.dtype)
    return torch.from_numpy(stored.data).view(stored.dtype).reshape(stored.dims)


class SafetensorsReader:
    translated = False
    evaluators = ()
    exporting = None

    def complaint(self, path: Path) -> str | None:
        return None

    def tensors(self, path: Path) -> Sequence[StoredTensor]:
        return read_safetensors(path)[0]

    def open(
        self,
        path: Path,
        model: EagerModel,
        *,
        threads: int,
        optimise: bool = True,
        repack: bool = True,
    ) -> LoadedWeights:
        return LoadedWeights(path, model)


READER: Reader = SafetensorsReader()
