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


def test_an_artifact_without_one_does(tmp_path: Path) -> None:
    outcome = converted(_PLAIN, OnnxOptions(), tmp_path)
    assert isinstance(outcome.template, BuiltTemplate)
