"""Ranges of activations, measured on inputs: what static quantisation writes into a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.architectures.sample import sample_inputs
from app.domain.errors import ExportFailed
from app.targets.capturing.quiet import first_lines
from app.targets.onnx.writing.fill import write_onnx
from app.targets.onnx.writing.int8 import Layer, Ranges
from app.targets.onnx.writing.reworked import reworked
from app.targets.onnx.writing.template import OnnxTemplate
from app.targets.request import ExportRequest
from app.targets.templating.pieces import Slot

DRAWS = 8
"""Of the declared distribution, beside what the client sent."""
STEPS = 255


def measured_ranges(
    template: OnnxTemplate,
    layers: Sequence[Layer],
    tensors: Mapping[str, Tensor],
    request: ExportRequest,
    directory: Path,
) -> tuple[dict[str, Ranges], str]:
    """The range of every value that a layer computes on, and in words what it was measured on.

    A file lies in ``directory`` meanwhile. Raises ExportFailed where the graph cannot be run on the inputs.
    """
    reads = list(dict.fromkeys(layer.reads for layer in layers if layer.operator != "Gather"))
    session = temporary_session(_watched(template, reads), tensors, directory)
    names = [f"{bound}_{number}" for number in range(len(reads)) for bound in ("least", "most")]
    generator = torch.Generator().manual_seed(0)
    drawn = [sample_inputs(request.signature, {}, generator) for _ in range(DRAWS)]
    low, high = np.zeros(len(reads)), np.zeros(len(reads))
    for inputs in (*request.calibration, *drawn) if names else ():
        try:
            found = np.array(session.run(names, fed(session, inputs)), np.float64).reshape(-1, 2)
        except Exception as error:  # onnxruntime raises classes of its own
            raise ExportFailed(f"The ranges cannot be measured: {first_lines(str(error))}", stage="export") from error
        low, high = np.minimum(low, found[:, 0]), np.maximum(high, found[:, 1])
    sent = f"{len(request.calibration)} probes of the request and " if request.calibration else ""
    told = f"Measured on {sent}{DRAWS} draws from the declared distribution."
    return {name: _range(low[number], high[number]) for number, name in enumerate(reads)}, told


def _range(low: float, high: float) -> Ranges:
    """Zero lies in every range and is a level itself, as padding needs."""
    scale = float(np.float32((high - low) / STEPS)) or 1.0
    return Ranges(scale, int(np.clip(np.rint(-low / scale), 0, STEPS)))


def _watched(template: OnnxTemplate, reads: Sequence[str]) -> OnnxTemplate:
    """The template whose outputs are the least and the greatest element of these values."""

    def change(graph: ir.Graph, _: Mapping[str, ir.Value]) -> Sequence[Slot]:
        values = {str(value.name): value for value in graph.inputs}
        values |= {str(value.name): value for node in graph for value in node.outputs}
        for number, name in enumerate(reads):
            for kind, bound in (("ReduceMin", "least"), ("ReduceMax", "most")):
                node = ir.node(kind, [values[name]], {"keepdims": 0})
                output = node.outputs[0]
                output.name, output.type = f"{bound}_{number}", ir.TensorType(ir.DataType.FLOAT)
                output.shape = ir.Shape([])
                graph.append(node)
                graph.outputs.append(output)
        return template.slots

    return reworked(template, change)


def temporary_session(
    template: OnnxTemplate, tensors: Mapping[str, Tensor], directory: Path
) -> onnxruntime.InferenceSession:
    """A session of a filled template, whose file lies in ``directory`` while it is read. Raises ExportFailed."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.enable_cpu_mem_arena = False
    with TemporaryDirectory(dir=directory) as place:
        written = write_onnx(template, tensors, Path(place) / "model.onnx")
        try:
            return onnxruntime.InferenceSession(str(written.path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises classes of its own
            raise ExportFailed(f"The graph cannot be measured: {first_lines(str(error))}", stage="export") from error


def fed(session: onnxruntime.InferenceSession, inputs: Mapping[str, Tensor]) -> dict[str, NDArray[np.generic]]:
    """What the session takes of these inputs."""
    taken = {node.name for node in session.get_inputs()}
    return {name: value.detach().contiguous().numpy() for name, value in inputs.items() if name in taken}
