"""Runtimes of ONNX beside the one that an artifact is proved in: onnx's own evaluator, and tract."""

import io
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from torch import Tensor

from app.domain.versions import PACKAGE
from app.processes import apart
from app.targets.artifact import ArtifactRefused
from app.targets.onnx.reading.graph import read_graph

_SECONDS = 20.0
"""Within which tract must answer: on graphs with loops it may not come to an end, and no verdict waits for it."""


class OnnxEvaluator:
    """onnx's own reference evaluator: plain numpy, about a second for the operations of its budget."""

    name = "onnx reference evaluator"
    budget = 1e8

    def run(self, path: Path, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        evaluator = ReferenceEvaluator(str(path))
        values = evaluator.run(None, {name: inputs[name].numpy() for name in evaluator.input_names})
        return {name: torch.as_tensor(v) for name, v in zip(evaluator.output_names, values, strict=True)}


class TractEvaluator:
    """tract, a runtime written in Rust for small devices, which shares no code with onnxruntime. An optional extra.

    It runs in a process of its own: a panic in Rust ends the process, whatever Python would catch.
    """

    name = "tract"
    budget = 1e11

    def run(self, path: Path, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if find_spec("tract") is None:
            raise ArtifactRefused(f'it is not installed: pip install "{PACKAGE}[tract]"')
        arrays = {name: value.contiguous().numpy() for name, value in inputs.items()}
        try:
            content = apart(lambda: _by_tract(path, arrays), _SECONDS)
        except ChildProcessError as refusal:
            raise ArtifactRefused(str(refusal).partition("\n\nStack backtrace")[0]) from refusal
        with np.load(io.BytesIO(content), allow_pickle=False) as values:
            outputs = [torch.from_numpy(values[str(place)]) for place in range(len(values.files))]
        names = (value.name for value in read_graph(path).graph.output)
        return dict(zip(names, outputs, strict=True))


def _by_tract(path: Path, inputs: Mapping[str, NDArray[np.generic]]) -> bytes:
    """The outputs in the order of the file, as npz."""
    import tract

    model = tract.onnx().load(str(path))
    given = [inputs[model.input_name(place)] for place in range(model.input_count())]
    outputs = model.into_model().into_runnable().run(given)
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **{str(place): value.to_numpy() for place, value in enumerate(outputs)})
    return content.getvalue()
