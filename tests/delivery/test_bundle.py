"""What a bundle says of itself, and what it refuses to hold."""

import json
import math

import jsonschema
import pytest

from app.delivery.bundle import BundledFile, make_bundle, manifest_document
from app.delivery.report_schema import report_schema
from app.domain.report import ConversionReport
from tests.delivery.reports import failed_report, report


def file(name: str, role: str = "artifact") -> BundledFile:
    return BundledFile(role, name, "ab" * 32, 10, 5, "application/onnx")


@pytest.mark.parametrize(
    "name", ["../model.onnx", "/etc/passwd", "a/b", "a\\b", "C:model", "..", "", "nul\0byte", "manifest.json"]
)
def test_names_that_could_leave_the_directory_are_refused(name):
    with pytest.raises(ValueError, match=r"plain file name|one name"):
        make_bundle("cnv_1", [file(name)], b"page")


def test_two_members_of_one_name_are_refused():
    with pytest.raises(ValueError, match="one name"):
        make_bundle("cnv_1", [file("a"), file("a", "golden")], b"page")


def test_the_digest_changes_with_any_member():
    one = make_bundle("cnv_1", [file("a")], b"page")
    assert one.digest == make_bundle("cnv_1", [file("a")], b"page").digest
    assert one.digest != make_bundle("cnv_1", [file("a")], b"another page").digest
    assert one.digest != make_bundle("cnv_1", [file("b")], b"page").digest


def test_the_manifest_lists_every_member_with_role_and_digest():
    document = json.loads(manifest_document("cnv_1", [file("a"), file("b", "golden")]))
    assert [(m["name"], m["role"], m["bytes"]) for m in document["members"]] == [
        ("a", "artifact", 10),
        ("b", "golden", 10),
    ]


@pytest.mark.parametrize("make", [report, failed_report])
def test_reports_match_the_published_schema_and_read_back(make):
    """The failed one holds a ratio that is not a number, for which JSON has no number."""
    text = make().model_dump_json()
    jsonschema.Draft202012Validator(report_schema()).validate(json.loads(text))
    again = ConversionReport.model_validate_json(text)
    assert again.model_dump_json() == text
    if make is failed_report:
        ratios = [output.ratio for probe in again.verification.probes for output in probe.outputs]
        assert any(math.isnan(ratio) for ratio in ratios)


def test_a_report_with_another_fact_does_not_match():
    document = json.loads(report().model_dump_json())
    document["verification"]["verdict"] = "splendid"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, report_schema())
