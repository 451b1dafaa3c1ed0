"""The reading half: the eager module runs on the tensors of the file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from app.architectures.calling import EagerModel, bind, flatten
from app.targets.artifact import GraphFacts, MalformedFile, ModuleValue, StoredTensor
from app.targets.reader import Reader


@dataclass
class ToyRunner:
    tensors: Mapping[str, Tensor]
    model: EagerModel
    names_outputs: bool = False

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        args, kwargs = bind(self.model, {name: value.clone() for name, value in inputs.items()})
        with torch.inference_mode():
            result = torch.func.functional_call(self.model.module, dict(self.tensors), args, kwargs, tie_weights=False)
        return flatten(result, self.model.signature)

    def facts(self) -> GraphFacts:
        return GraphFacts(constants=None)

    def intermediates(self, values: Sequence[ModuleValue], inputs: Mapping[str, Tensor]) -> Sequence[Sequence[Tensor]]:
        return [[] for _ in values]


class ToyReader:
    translated = False
    evaluators = ()
    exporting = None

    def complaint(self, path: Path) -> str | None:
        return None

    def tensors(self, path: Path) -> Sequence[StoredTensor]:
        head, _, body = path.read_bytes().partition(b"\n")
        try:
            table = json.loads(head)["tensors"]
        except (ValueError, LookupError, TypeError) as error:
            raise MalformedFile(f"no toy: {error}") from error
        content, found, start = np.frombuffer(body, np.uint8), [], 0
        for name, form in table.items():
            dtype = getattr(torch, form["dtype"])
            end = start + dtype.itemsize * int(np.prod(form["shape"], dtype=np.int64))
            found.append(StoredTensor(name, tuple(form["shape"]), dtype, content[start:end]))
            start = end
        return found

    def open(self, path: Path, model: EagerModel, **_: Any) -> ToyRunner:
        tensors = {
            stored.name: torch.frombuffer(bytearray(stored.data), dtype=stored.dtype).reshape(stored.dims)
            for stored in self.tensors(path)
        }
        return ToyRunner(tensors, model)


READER: Reader = ToyReader()
