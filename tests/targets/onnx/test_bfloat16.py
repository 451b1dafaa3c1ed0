"""precision=bf16: weights in half the bytes, computed with in float32 since CPU runtimes have no bfloat16 operators."""

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto

from app.domain.errors import UnsupportedOpset
from app.domain.report import Verdict
from app.targets.onnx.spec import OnnxOptions
from tests.conversion.verification.conversions import converted

BODY = "        return torch.relu(self.last(x))"


def test_weights_are_stored_in_bfloat16_and_proved_to_be_the_uploaded_ones_rounded(tmp_path: Path) -> None:
    outcome = converted(BODY, OnnxOptions(precision="bf16"), tmp_path)
    report = outcome.report
    assert report.verification.verdict in (Verdict.passed, Verdict.pass_with_notes), report.verification.findings
    assert report.verification.gate.u == 2.0**-8
    assert report.verification.ledger is not None
    assert {entry.ledger_class for entry in report.verification.ledger.entries} <= {"cast", "folded"}
    model = onnx.load(tmp_path / "work" / report.artifact.filename)
    stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert stored["last.bias"] == TensorProto.BFLOAT16
    assert any(warning.startswith("bf16:") for warning in report.export.warnings)


def test_an_opset_without_bfloat16_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOpset, match="bf16"):
        converted(BODY, OnnxOptions(precision="bf16", opset=12), tmp_path)
