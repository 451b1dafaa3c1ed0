"""Real artifacts of a net, made by every way that Recast has, carrying the weights one asks for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from app.architectures.sample import sample_inputs
from app.domain.architecture import Signature
from app.domain.conversion import AccuracyBudget, CommonOptions, TargetName
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
PROGRAM, WEIGHTS = "torch.export", "state dict"
HALF, BRAIN = "dynamo, float16", "dynamo, bfloat16"
INT8, STATIC = "dynamo, int8", "dynamo, int8 with static ranges"
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
    BRAIN: ("dynamo", OnnxOptions(precision="bf16")),
    INT8: ("dynamo", OnnxOptions(precision="int8")),
    STATIC: ("dynamo", OnnxOptions(precision="int8", activations="static")),
}
"""Exporter and options of each way."""
WAYS = tuple(_OPTIONS)


@dataclass(frozen=True)
class Artifact:
    path: Path
    target: TargetName
    export: ExportReport
    claims: Mapping[str, Claim]
    sha256: str
    coarseness: float = 1.0
    tolerance: AccuracyBudget | None = None
    exact: "Artifact | None" = None
    """What an approximation was derived from."""


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
    exactly = replace(request, options=options.exact)
    template = target.build_template(target.capture(exactly, exporter), exactly, directory / "template")

    def fill(tensors: Mapping[str, Tensor], path: Path) -> Artifact:
        exact = written(template, tensors, path)
        if options.tolerance is None:
            return exact
        derived, _ = next(target.approximations(template, tensors, request, directory))
        made = written(derived, tensors, path.with_name(f"{path.name}-int8"))
        return replace(made, tolerance=options.tolerance, exact=exact)

    def written(made: Any, tensors: Mapping[str, Tensor], path: Path) -> Artifact:
        file = target.fill(made, tensors, request, path.with_suffix(SPECS[options.target].suffix))
        report, claims = target.report(made, request), target.claims(made)
        sha256 = file.sha256 + (file.data.sha256 if file.data else "")
        return Artifact(file.path, options.target, report, claims, sha256, options.coarseness)

    return fill
