"""Artifacts made by the product's own targets, verified as they are."""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from app.architectures.sample import sample_inputs
from app.conversion.verification.verify import verify
from app.domain.architecture import Signature
from app.domain.report import VerificationReport
from app.targets.onnx.spec import OnnxOptions
from app.targets.request import ExportRequest
from app.targets.specs import SPECS
from app.targets.torchscript.spec import TorchScriptOptions
from app.targets.writer import writer_of
from tests.conversion.verification.subjects import subject


def verified(
    module: nn.Module, signature: Signature, directory: Path, target: Literal["onnx", "torchscript"], exporter: str
) -> VerificationReport:
    """The report on the artifact that this exporter makes of the module."""
    chosen: Any = writer_of(target)
    sample = sample_inputs(signature, {}, torch.Generator().manual_seed(0))
    request = ExportRequest(module, signature, OnnxOptions() if target == "onnx" else TorchScriptOptions(), sample)
    captured = chosen.capture(request, exporter)
    template = chosen.build_template(captured, request, directory / "template")
    written = chosen.fill(template, module.state_dict(), request, directory / f"model{SPECS[target].suffix}")
    claims = chosen.claims(template)
    return verify(
        subject(module, signature, written.path, chosen.report(template, request), claims=claims, kept=captured.kept)
    )
