"""Whole conversions of small architectures, in process, and what the independent judge has against the artifact."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from recast_plugins import Declaration, declarations
from torch import nn

from app.conversion.job import ConversionJob, ConversionOutcome
from app.conversion.pipeline import convert
from app.domain.errors import RecastError
from app.targets.onnx.spec import OnnxOptions
from app.targets.torchscript.spec import TorchScriptOptions
from scripts.artifact_judge import judge
from scripts.field_cases import NoTemplates, loaded, plan_of, unheard


@dataclass(frozen=True)
class Case:
    """One architecture of a plug-in file, with what the file says of how to judge it."""

    path: Path
    declaration: Declaration
    module: ModuleType

    def build(self) -> nn.Module:
        torch.manual_seed(zlib.crc32(self.declaration.name.encode()))
        return self.declaration.construct({})

    def faults(self, weights: Mapping[str, Any], artifact: Path) -> tuple[str, ...]:
        """What is wrong with the artifact of the case with these weights."""

        def fresh() -> nn.Module:
            module = self.build()
            module.load_state_dict(weights)
            return module.eval()

        signature, extra = self.declaration.signature({}), vars(self.module).get("extra")
        judged = judge(fresh, signature, artifact, plan_of(self.module, self.declaration), extra)
        return judged.faults if judged.trials else ("eager refuses every trial",)


def cases_of(path: Path) -> list[Case]:
    module = loaded(path)
    return [Case(path, declaration, module) for declaration in declarations(vars(module))]


@dataclass(frozen=True)
class Result:
    """``outcome`` of the conversion or the ``error`` that ended it, and what the judge has against the artifact."""

    outcome: ConversionOutcome | None
    error: RecastError | None
    wrong: tuple[str, ...]

    @property
    def delivered(self) -> bool:
        """Whether a client would take the file for right."""
        return self.outcome is not None and self.outcome.report.verification.verdict in ("pass", "pass_with_notes")

    def __str__(self) -> str:
        if self.outcome is None:
            assert self.error is not None
            return f"{self.error.code}: {self.error.detail}"
        report = self.outcome.report
        found = "; ".join(f"{f.severity} {f.reason}: {f.detail}" for f in report.verification.findings)
        return f"{report.verification.verdict.value} by {report.export.exporter} [{found}] judged {self.wrong[:4]}"


def run(case: Case, options: OnnxOptions | TorchScriptOptions, directory: Path) -> Result:
    """Convert the case with weights of its own, in process, and judge what comes out."""
    weights = prepared(case).state_dict()
    torch.save(weights, directory / "weights.pth")
    (directory / "plugins").mkdir()
    (directory / "plugins" / case.path.name).write_bytes(case.path.read_bytes())
    (directory / "work").mkdir()
    job = ConversionJob(
        conversion_id="00000000-0000-0000-0000-000000000001",
        checkpoint=directory / "weights.pth",
        checkpoint_sha256="0" * 64,
        architecture=case.declaration.name,
        options=options,
        work_dir=directory / "work",
        plugins_dir=directory / "plugins",
    )
    try:
        outcome = convert(job, unheard, NoTemplates())
    except RecastError as error:
        return Result(None, error, ())
    return Result(outcome, None, case.faults(weights, directory / "work" / outcome.report.artifact.filename))


def prepared(case: Case) -> nn.Module:
    module = case.build()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point() and parameter.dim():
                spread = parameter.std() if parameter.numel() > 1 else torch.tensor(1.0)
                parameter.add_(torch.randn_like(parameter) * 0.05 * spread)
    if hasattr(case.module, "prepare"):
        case.module.prepare(module)
    return module.eval()
