"""No artifact passes that is wrong at other sizes or inputs: judged by code that verification does not share."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from app.domain.conversion import TargetName
from app.targets.onnx.spec import OnnxOptions
from app.targets.torchscript.spec import TorchScriptOptions
from scripts.field_cases import Row, table
from tests.field.conversions import Result, cases_of, run

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
OPTIONS = {"onnx": OnnxOptions(), "torchscript": TorchScriptOptions()}
REPORTED = ("c16", "c20", "c24", "c25", "c26", "c28", "c30", "c31", "c60", "c62", "c64", "c72", "c80", "c81", "c85")
FILES = (
    HERE / "own_cases.py",
    HERE / "own_values.py",
    *(path for name in REPORTED for path in (HERE / "cases").glob(f"{name}_*.py")),
)
CASES = {case.declaration.name: case for path in FILES for case in cases_of(path)}


Converted = Callable[[str, TargetName], Result]


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """What became of a case, converted to a target with its default options, once for all tests that look at it."""
    return cache(lambda name, target: run(CASES[name], OPTIONS[target], tmp_path_factory.mktemp("case")))


@pytest.mark.parametrize("target", ["onnx", "torchscript"])
@pytest.mark.parametrize("name", CASES)
def test_an_artifact_that_passes_is_right_on_both_sides(name: str, target: TargetName, converted: Converted) -> None:
    result = converted(name, target)
    assert not (result.delivered and result.wrong), result


@pytest.mark.parametrize("target", ["onnx", "torchscript"])
def test_a_model_that_refuses_its_declared_inputs_is_told_so_for_every_target(
    target: TargetName, converted: Converted
) -> None:
    result = converted("field/bad_size", target)
    assert result.outcome is None
    assert result.error is not None
    assert (result.error.code, "Input length 12" in result.error.detail) == ("model_refuses_inputs", True)


@pytest.mark.parametrize(
    ("name", "exporter"),
    [
        ("field/dcn", "dynamo"),
        ("field/sdpa_rare", "torchscript"),
        ("field/anchor_cache", "torchscript"),
        ("field/tall", "joined"),
        ("field/kv_cache", "joined"),
        ("own/giving_weights", "torchscript"),
    ],
)
def test_what_can_be_made_right_is_delivered(name: str, exporter: str, converted: Converted) -> None:
    result = converted(name, "onnx")
    assert result.delivered, result
    assert not result.wrong, result
    assert result.outcome is not None
    assert result.outcome.report.export.exporter == exporter


def test_the_table_counts_what_was_made_and_tells_each_row_on_one_line() -> None:
    row = Row("c00", "a report", "onnx", "told", "export_failed", "", "two | lines\nof words", 1.0)
    made = table([row])
    assert "1 of " in made
    assert "| c00 | a report | onnx | told | `export_failed` |  | two \\| lines of words |" in made
