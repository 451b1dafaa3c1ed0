"""OpenVINO's own runtime on its CPU plug-in."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from app.domain.architecture import Signature
from app.domain.text import message_of
from app.targets.artifact import ArtifactRefused, GraphFacts, MalformedFile, ModuleValue
from app.targets.openvino.library import openvino
from app.targets.openvino.reading import audited
from app.targets.openvino.reading.ir import OpenVinoFile


class OpenVinoRuntime:
    """A compiled model. Left to itself the plug-in computes in bfloat16 where the processor can."""

    names_outputs = True

    def __init__(self, path: Path, signature: Signature, *, threads: int = 1) -> None:
        self._settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "f32",
            "EXECUTION_MODE_HINT": "ACCURACY",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": "1",
            "ENABLE_CPU_PINNING": False,
        }
        self._declared = {spec.name for spec in signature.outputs}
        try:
            self._file = OpenVinoFile(path)
            self._model = openvino().Core().read_model(str(path))
            self._compiled = openvino().Core().compile_model(self._model, "CPU", self._settings)
        except MalformedFile as refusal:
            raise ArtifactRefused(str(refusal)) from refusal
        except Exception as refusal:
            raise ArtifactRefused(message_of(refusal)) from refusal

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        values = _run(self._compiled, inputs)
        return {self._name(port): value for port, value in zip(self._compiled.outputs, values, strict=True)}

    def _name(self, port: Any) -> str:
        """An output that is an input as well has the names of both."""
        names: set[str] = port.get_names()
        return min(names & self._declared or names)

    def facts(self) -> GraphFacts:
        return GraphFacts(audited.constants(self._file), axes=self._file.axes)

    def intermediates(self, values: Sequence[ModuleValue], inputs: Mapping[str, Tensor]) -> Sequence[Sequence[Tensor]]:
        """Every float value of the graph that has as many elements: it carries no names of modules."""
        library = openvino()
        watched = self._model.clone()
        operators = [node for node in watched.get_ordered_ops() if node.get_type_name() not in ("Constant", "Result")]
        ports = [port for node in operators for port in node.outputs()]
        watched.add_outputs([port for port in ports if port.get_element_type() == library.Type.f32])
        try:
            compiled = library.Core().compile_model(watched, "CPU", self._settings)
        except Exception as refusal:
            raise ArtifactRefused(message_of(refusal)) from refusal
        by_count: dict[int, list[Tensor]] = {}
        for tensor in _run(compiled, inputs):
            by_count.setdefault(tensor.numel(), []).append(tensor)
        return [by_count.get(value.output.numel(), []) for value in values]


def _run(compiled: Any, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    try:
        # An exporter may drop an input that the model does not use.
        given = compiled({port: inputs[port.any_name].contiguous().numpy() for port in compiled.inputs})
    except Exception as refusal:
        raise ArtifactRefused(message_of(refusal)) from refusal
    return [torch.from_numpy(given[port].copy()) for port in compiled.outputs]
