"""Artifacts as the direct path writes them, captured and optimised without a template, and their ledgers."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import onnx
import pytest
import torch
from torch import nn

from app.architectures.sample import sample_inputs
from app.conversion.exporters import onnx_dynamo, onnx_torchscript
from app.conversion.exporters.request import ExportRequest
from app.conversion.verification.ledger.ledger import onnx_ledger
from app.domain.architecture import Axis, InputSpec, Integers, Signature
from app.domain.checkpoint import LoadReport
from app.domain.conversion import OnnxOptions
from app.domain.report import Ledger
from tests.conversion.verification import plain_onnx
from tests.conversion.verification.ledger_cases import upload
from tests.conversion.verification.plain_onnx import optimised

EXPORTERS = pytest.mark.parametrize("exporter", [onnx_dynamo, onnx_torchscript], ids=["dynamo", "torchscript"])
_BATCH = (Axis(name="batch", sample=2),)


def floats(*shape: int | str) -> Signature:
    """One input x of real numbers."""
    return Signature(inputs=(InputSpec(name="x", shape=("batch", *shape)),), axes=_BATCH)


def ids(length: int, count: int) -> Signature:
    """One input of token ids below ``count``."""
    spec = InputSpec(name="ids", dtype="int64", shape=("batch", length), distribution=Integers(low=0, high=count - 1))
    return Signature(inputs=(spec,), axes=_BATCH)


def written(module: nn.Module, signature: Signature, exporter: ModuleType, directory: Path) -> Path:
    """The optimised file of the module."""
    sample = sample_inputs(signature, {}, torch.Generator().manual_seed(0))
    captured = exporter.capture(ExportRequest(module.eval(), signature, OnnxOptions(), sample))
    path = directory / "model.onnx"
    plain_onnx.write(optimised(captured.model), path)
    return path


def edited(path: Path, edit: Callable[[onnx.ModelProto], None]) -> Path:
    """A copy of the file with something changed in it."""
    model = onnx.load(path)
    edit(model)
    onnx.save(model, path.with_name("edited.onnx"))
    return path.with_name("edited.onnx")


def ledger(path: Path, module: nn.Module, signature: Signature) -> Ledger:
    return onnx_ledger(path, upload(module), LoadReport(strict=True), module.eval(), None, signature=signature)


def scattered(module: nn.Module) -> nn.Module:
    """The module with weights that no two tensors share and that no default equals."""
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                tensor.add_(torch.randn(tensor.shape) * 0.2)
                if name.endswith("running_var"):
                    tensor.abs_().add_(0.1)
    return module
