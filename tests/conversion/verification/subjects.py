"""Subjects for verification made from small modules: real exports, real files."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from app.architectures.sample import sample_inputs
from app.conversion.verification.subject import Subject
from app.domain.architecture import Axis, InputSpec, OutputSpec, Signature
from app.domain.checkpoint import LoadReport
from app.domain.report import ExportReport, Finding, Reason, VerificationReport
from app.targets.capturing.place import Place
from app.targets.claims import Claim
from app.targets.onnx.spec import OnnxOptions
from app.targets.request import ExportRequest
from app.targets.specs import SPECS
from app.targets.torchscript.spec import TorchScriptOptions
from app.targets.writer import writer_of

BATCH = Axis(name="batch", sample=2)
FEATURES = Signature(inputs=(InputSpec(name="x", shape=("batch", 6)),), axes=(BATCH,), outputs=(OutputSpec(name="y"),))
IMAGES = Signature(
    inputs=(InputSpec(name="x", shape=("batch", 3, 8, 8)),), axes=(BATCH,), outputs=(OutputSpec(name="y"),)
)


class Perceptron(nn.Module):
    """Two layers with layer norm and GELU between them."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Linear(6, 16)
        self.norm = nn.LayerNorm(16)
        self.act = nn.GELU()
        self.last = nn.Linear(16, 4)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.act(self.norm(self.first(x))))


class Convolutional(nn.Module):
    """Convolution, batch norm with statistics that are not the defaults, and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)
        self.norm.running_mean.normal_(0, 0.3)
        self.norm.running_var.uniform_(0.5, 2)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


def onnx_subject(
    module: nn.Module,
    signature: Signature,
    directory: Path,
    *,
    of: nn.Module | None = None,
    exported_as: Signature | None = None,
    exporter: str = "dynamo",
    options: OnnxOptions | None = None,
    edit: Callable[[onnx.ModelProto], None] | None = None,
    **more: Any,
) -> Subject:
    """A subject whose artifact was exported from ``of`` (default: the module itself), then edited."""
    exported = exported_as or signature
    request = ExportRequest(of or module, exported, options or OnnxOptions(), _sample(exported))
    made = filled(request, exporter, directory)
    if edit is not None:
        rewrite(made.path, edit, made.path)
    written = onnx.load(made.path)
    opset = next(entry.version for entry in written.opset_import if entry.domain == "")
    report = made.report.model_copy(update={"opset": opset, "ir_version": written.ir_version})
    return subject(module, signature, made.path, report, **{"claims": made.claims, **more})


def rewrite(path: Path, edit: Callable[[onnx.ModelProto], None], target: Path) -> Path:
    """The file, edited, under another name."""
    model = onnx.load(path)
    edit(model)
    onnx.save(model, target)
    return target


def torchscript_subject(
    module: nn.Module,
    signature: Signature,
    directory: Path,
    *,
    of: nn.Module | None = None,
    exporter: str = "trace",
    **more: Any,
) -> Subject:
    """A subject whose artifact was traced or scripted from ``of`` (default: the module itself)."""
    request = ExportRequest(of or module, signature, TorchScriptOptions(), _sample(signature))
    made = filled(request, exporter, directory)
    return subject(module, signature, made.path, made.report, **{"claims": made.claims, "kept": made.kept, **more})


@dataclass(frozen=True)
class Filled:
    """An artifact as the product makes it, and what its template says of it."""

    path: Path
    report: ExportReport
    claims: Mapping[str, Claim]
    kept: tuple[Place, ...]


def filled(request: ExportRequest, exporter: str, directory: Path) -> Filled:
    """The artifact that carries the module's own weights, captured by that exporter.

    Of the nets above it is captured once: what is exported again and again is the same file.
    """
    path = directory / f"model{SPECS[request.options.target].suffix}"
    key = _identity(request, exporter)
    if key is None or key not in _CAPTURED:
        made = _captured(request, exporter, directory, path)
        if key is not None:
            _CAPTURED[key] = (made, path.read_bytes())
        return made
    made, content = _CAPTURED[key]
    path.write_bytes(content)
    return replace(made, path=path)


_CAPTURED: dict[object, tuple[Filled, bytes]] = {}


def _identity(request: ExportRequest, exporter: str) -> object | None:
    """All that a capture of one of the nets above into one file depends on; None for another module."""
    module = request.module
    if type(module) not in (Perceptron, Convolutional) or getattr(request.options, "external_data", False) is True:
        return None
    parts = tuple((part.training, tuple(sorted(vars(part)))) for part in module.modules())
    state = tuple(
        (name, tensor.dtype, tensor.double().numpy().tobytes()) for name, tensor in module.state_dict().items()
    )
    asked = (exporter, request.options.model_dump_json(), request.signature.model_dump_json())
    return (type(module), repr(module), parts, state, asked)


def _captured(request: ExportRequest, exporter: str, directory: Path, path: Path) -> Filled:
    target: Any = writer_of(request.options.target)
    captured = target.capture(request, exporter)
    template = target.build_template(captured, request, directory / "template")
    target.fill(template, request.module.state_dict(), request, path)
    return Filled(path, target.report(template, request), target.claims(template), captured.kept)


def _sample(signature: Signature) -> dict[str, Tensor]:
    return sample_inputs(signature, {}, torch.Generator().manual_seed(0))


def subject(module: nn.Module, signature: Signature, artifact: Path, export: ExportReport, **more: Any) -> Subject:
    """The subject of a strict load of the module's own state dict."""
    made = Subject(
        module=module,
        signature=signature,
        load=LoadReport(strict=True),
        uploaded=module.state_dict(),
        claims={},
        target=export.target,
        artifact=artifact,
        export=export,
        seed=11,
        threads=1,
    )
    return replace(made, **more)


def set_initializer(model: onnx.ModelProto, name: str, change: Callable[[Tensor], Tensor]) -> None:
    """Replace an initializer's values in place."""
    for tensor in model.graph.initializer:
        if tensor.name == name:
            value = change(torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy()))
            tensor.CopyFrom(onnx.numpy_helper.from_array(value.numpy(), name))
            return
    raise AssertionError(f"the model has no initializer {name}")


def findings(report: VerificationReport) -> Mapping[Reason, Finding]:
    """The findings by reason; the first of each."""
    found: dict[Reason, Finding] = {}
    for finding in report.findings:
        found.setdefault(finding.reason, finding)
    return found
