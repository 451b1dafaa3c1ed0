"""Real artifacts of a net, made by every way that Recast has, carrying the weights one asks for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from app.architectures.sample import sample_inputs
from app.domain.architecture import Signature
from app.domain.conversion import CommonOptions, TargetName
from app.domain.report import ExportReport
from app.targets.claims import Claim
from app.targets.onnx.spec import OnnxOptions
from app.targets.openvino.spec import OpenVinoOptions
from app.targets.pt2.spec import Pt2Options
from app.targets.request import ExportRequest
from app.targets.safetensors.spec import SafetensorsOptions
from app.targets.specs import SPECS
from app.targets.torchscript.spec import TorchScriptOptions
from app.targets.writer import writer_of

DYNAMO, SIDE_FILE, TRACED_ONNX = "dynamo", "dynamo, external data", "torchscript exporter"
TRACE, FROZEN, DEBUG, SCRIPT = "traced", "traced, frozen", "traced, with debug records", "scripted"
PROGRAM, WEIGHTS, HALF = "torch.export", "state dict", "dynamo, float16"
DERIVED = "OpenVINO of dynamo"
_OPTIONS: dict[str, tuple[str, CommonOptions]] = {
    DYNAMO: ("dynamo", OnnxOptions()),
    SIDE_FILE: ("dynamo", OnnxOptions(external_data=True)),
    TRACED_ONNX: ("torchscript", OnnxOptions()),
    TRACE: ("trace", TorchScriptOptions()),
    FROZEN: ("trace", TorchScriptOptions(freeze=True)),
    DEBUG: ("trace", TorchScriptOptions(keep_debug=True)),
    SCRIPT: ("script", TorchScriptOptions()),
    PROGRAM: ("torch.export", Pt2Options()),
    WEIGHTS: ("state_dict", SafetensorsOptions()),
    HALF: ("dynamo", OnnxOptions(precision="fp16")),
    DERIVED: ("dynamo", OpenVinoOptions()),
}
"""Exporter and options of each way."""
WAYS = tuple(_OPTIONS)


@dataclass(frozen=True)
class Artifact:
    path: Path
    target: TargetName
    export: ExportReport
    claims: Mapping[str, Claim]
    coarseness: float = 1.0


Writer = Callable[[Mapping[str, Tensor], Path], Artifact]
"""Writes an artifact that carries the tensors of a whole state dict to a path without suffix."""


def writer(module: nn.Module, signature: Signature, way: str, directory: Path) -> Writer:
    """Capture the module once, by one way; the writer then makes artifacts of that graph with any weights.

    Raises ExportFailed and kin.
    """
    exporter, options = _OPTIONS[way]
    target: Any = writer_of(options.target)
    sample = sample_inputs(signature, {}, torch.Generator().manual_seed(0))
    request = ExportRequest(module, signature, options, sample)
    template = target.build_template(target.capture(request, exporter), request, directory / "template")
    report, claims = target.report(template, request), target.claims(template)

    def fill(tensors: Mapping[str, Tensor], path: Path) -> Artifact:
        written = target.fill(template, tensors, request, path.with_suffix(SPECS[options.target].suffix))
        return Artifact(written.path, options.target, report, claims, options.coarseness)

    return fill
