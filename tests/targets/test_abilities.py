"""What a conversion needs of a worker, and what a version of the service can do, follow from the options' own types."""

import pytest

from app.targets.abilities import abilities, needs, understood
from app.targets.specs import OPTIONS, SPECS, default_options


def needed(**options: object) -> set[str]:
    return set(needs(OPTIONS.validate_python(options)))


def test_what_is_asked_for_at_its_default_needs_the_target_alone() -> None:
    assert [needs(options) for options in default_options(SPECS)] == [(name,) for name in SPECS]


def test_an_option_and_each_of_its_values_is_an_ability_of_its_own() -> None:
    assert needed(target="onnx", precision="int8", budget={"top1": 0.9}, measure=["matrix"]) == {
        "onnx",
        "onnx.precision",
        "onnx.precision=int8",
        "onnx.budget",
        "onnx.budget.top1",
        "onnx.measure",
        "onnx.measure=matrix",
    }


@pytest.mark.parametrize("target", SPECS)
def test_this_version_can_do_what_it_lets_ask_for(target: str) -> None:
    options = OPTIONS.validate_python({"target": target, "strict": False, "embed": {"custom.a": "b"}, "prefix": "a."})
    assert set(needs(options, recipe=True)) - {target} <= abilities()


def test_what_a_later_version_stored_beside_is_left_out() -> None:
    stored = OPTIONS.validate_python({"target": "onnx", "opset": 18}).model_dump(mode="json")
    assert understood({**stored, "of_a_later_version": None}) == stored
