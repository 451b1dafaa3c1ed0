"""A graph that was made by code that eager never runs serves only the weights that it was held against."""

from pathlib import Path

from app.conversion.job import BuiltTemplate, UnsuitableTemplate
from app.domain.report import Reason, Verdict
from app.targets.onnx.spec import OnnxOptions
from tests.conversion.verification.conversions import converted
from tests.conversion.verification.subjects import findings

_CLAMPED = """
        x = self.last(x)
        return x.clamp(-1e30, 1e30) if torch.onnx.is_in_onnx_export() else x
"""
_OTHER_MASK = """
        length = torch.full((x.shape[0],), 6)
        seen = torch.arange(6) < length[:, None]
        if torch.onnx.is_in_onnx_export():
            seen = torch.arange(6).lt(length.unsqueeze(1) + 1) & torch.arange(6).lt(length.unsqueeze(1))
        return self.last(x.masked_fill(~seen, 0.0))
"""
_MASK_OF_FLOATS = """
        y = self.last(x)
        seen = y > -1e30
        if torch.onnx.is_in_onnx_export():
            seen = seen & seen
        return y.masked_fill(~seen, 0.0)
"""
_PLAIN = """
        return self.last(x)
"""


def test_an_artifact_with_an_export_only_branch_gives_no_template(tmp_path: Path) -> None:
    outcome = converted(_CLAMPED, OnnxOptions(), tmp_path)
    assert outcome.report.verification.verdict is Verdict.pass_with_notes
    assert Reason.export_branch in findings(outcome.report.verification)
    assert isinstance(outcome.template, UnsuitableTemplate)
    assert "export_branch" in outcome.template.reason
    use = outcome.report.export.template
    assert use is not None
    assert use.state == "not_reusable"


def test_one_that_parts_in_integers_of_the_inputs_alone_serves_other_weights(tmp_path: Path) -> None:
    outcome = converted(_OTHER_MASK, OnnxOptions(exporter="dynamo"), tmp_path)
    assert Reason.export_branch_on_integers in findings(outcome.report.verification)
    assert isinstance(outcome.template, BuiltTemplate)


def test_one_that_parts_in_what_weights_steer_does_not(tmp_path: Path) -> None:
    outcome = converted(_MASK_OF_FLOATS, OnnxOptions(exporter="dynamo"), tmp_path)
    assert Reason.export_branch in findings(outcome.report.verification)
    assert isinstance(outcome.template, UnsuitableTemplate)


def test_an_artifact_without_one_does(tmp_path: Path) -> None:
    outcome = converted(_PLAIN, OnnxOptions(), tmp_path)
    assert isinstance(outcome.template, BuiltTemplate)
