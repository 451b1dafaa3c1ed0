"""No artifact passes that is wrong at other sizes or inputs: judged by code that verification does not share."""

from pathlib import Path

import pytest

from app.domain.conversion import TargetName
from tests.field.judging import Case, cases_of, run, with_target

HERE = Path(__file__).parent
CASES = {case.declaration.name: case for name in ("own_cases", "own_values") for case in cases_of(HERE / f"{name}.py")}


@pytest.mark.parametrize("target", ["onnx", "torchscript"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_an_artifact_that_passes_is_right_on_both_sides(case: Case, target: TargetName, tmp_path: Path) -> None:
    result = run(case, with_target(target), tmp_path)
    assert not (result.delivered and result.wrong), result
    assert result.outcome is not None or result.error is not None
