"""Real artifacts of a net, made by every way that Recast has, carrying the weights one asks for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
import torch
from fault_table import plain_onnx
from onnx_ir.tensor_adapters import TorchTensor
from torch import Tensor, nn

from app.architectures.sample import sample_inputs
from app.conversion.exporters import onnx_dynamo, onnx_torchscript, torchscript
from app.conversion.exporters.captured import CapturedTorchScript
from app.conversion.exporters.request import ExportRequest
from app.conversion.targets import TARGETS
from app.conversion.verification.claims import InitializerClaim
from app.domain.architecture import Signature
from app.domain.conversion import OnnxOptions, TargetName, TorchScriptOptions
from app.domain.report import ExportReport

TEMPLATE, DYNAMO, DYNAMO_OPTIMISED = "dynamo, template", "dynamo, as captured", "dynamo, optimised"
TRACED_ONNX, TRACED_ONNX_OPTIMISED = "torchscript exporter, as captured", "torchscript exporter, optimised"
TRACE, SCRIPT = "TorchScript, traced", "TorchScript, scripted"
WAYS = (TEMPLATE, DYNAMO, DYNAMO_OPTIMISED, TRACED_ONNX, TRACED_ONNX_OPTIMISED, TRACE, SCRIPT)


@dataclass(frozen=True)
class Artifact:
    path: Path
    target: TargetName
    export: ExportReport
    claims: Mapping[str, InitializerClaim] | None = None


Writer = Callable[[Mapping[str, Tensor], Path], Artifact]
"""Writes an artifact that carries the tensors of a whole state dict to a path without suffix."""


def writer(module: nn.Module, signature: Signature, way: str, directory: Path) -> Writer:
    """Export the module once, by one way; the writer then makes artifacts of that graph with any weights.

    Raises ExportFailed and kin.
    """
    sample = sample_inputs(signature, {}, torch.Generator().manual_seed(0))
    if way in (TRACE, SCRIPT):
        request = ExportRequest(module, signature, TorchScriptOptions(), sample)
        captured = torchscript.capture(request, "trace" if way == TRACE else "script")
        return lambda tensors, path: _torchscript(captured, tensors, path)
    request = ExportRequest(module, signature, OnnxOptions(), sample)
    if way == TEMPLATE:
        target = TARGETS["onnx"]
        template = target.build_template(onnx_dynamo.capture(request), request, directory / "template")
        report = target.report(template, request)
        claims = target.claims(template)

        def fill(tensors: Mapping[str, Tensor], path: Path) -> Artifact:
            written = target.fill(template, tensors, request, path.with_suffix(".onnx"))
            return Artifact(written.path, "onnx", report, claims)

        return fill
    capture = onnx_dynamo.capture if way.startswith("dynamo") else onnx_torchscript.capture
    graph = capture(request)
    content = ir.serde.serialize_model(graph.model).SerializeToString()
    return lambda tensors, path: _onnx(content, graph.exporter, way.endswith("optimised"), tensors, path)


def _onnx(content: bytes, exporter: str, optimised: bool, tensors: Mapping[str, Tensor], path: Path) -> Artifact:
    model = ir.serde.deserialize_model(onnx.ModelProto.FromString(content))
    for name, value in model.graph.initializers.items():
        if name in tensors:
            value.const_value = TorchTensor(tensors[name].contiguous(), name=name)
    if optimised:
        model = plain_onnx.optimised(model)
    path = path.with_suffix(".onnx")
    plain_onnx.write(model, path)
    written = onnx.load(path)
    opset = next(entry.version for entry in written.opset_import if entry.domain == "")
    return Artifact(
        path, "onnx", ExportReport(target="onnx", exporter=exporter, opset=opset, ir_version=written.ir_version)
    )


def _torchscript(captured: CapturedTorchScript, tensors: Mapping[str, Tensor], path: Path) -> Artifact:
    # A traced module's state dict holds non-persistent buffers as well; those are not the upload's.
    held = {name: value for name, value in captured.module.state_dict().items() if name in tensors}
    originals = {name: value.clone() for name, value in held.items()}
    path = path.with_suffix(".pt")
    with torch.no_grad():
        for name, value in held.items():
            value.copy_(tensors[name])
        torchscript.write(captured, path)
        for name, value in held.items():
            value.copy_(originals[name])
    return Artifact(path, "torchscript", ExportReport(target="torchscript", exporter=captured.method))
