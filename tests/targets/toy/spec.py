"""A target of the tests: the tensors of a state dict in one line of JSON and raw bytes."""

from typing import Literal

from app.domain.conversion import CommonOptions
from app.domain.report import ConversionReport
from app.targets.spec import TargetSpec


class ToyOptions(CommonOptions):
    """Options of target ``toy``."""

    target: Literal["toy"] = "toy"
    greeting: str = "hello"


def _usage(report: ConversionReport) -> dict[str, str]:
    return {"Shell": f"head -1 {report.artifact.filename}"}


SPEC = TargetSpec("toy", title="Toy", options=ToyOptions, suffix=".toy", usage=_usage)
