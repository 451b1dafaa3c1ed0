"""Options of the targets as clients write them: what is accepted, what is refused and in which words."""

import pytest

from app.api.conversion_request import target_options
from app.domain.architecture import ArchitectureDescription, InputSpec, Signature
from app.domain.errors import InvalidOptions
from app.targets.specs import SPECS
from app.targets.templating.key import template_key

SIGNATURE = Signature(inputs=(InputSpec(name="x", shape=(1, 3)),))
NET = ArchitectureDescription(name="test/net", family="test", library="test", library_version="1", signature=SIGNATURE)


@pytest.mark.parametrize(
    ("option", "value"), [("runtime", "onnxruntime"), ("simplify", True), ("precision", "fp32"), ("exporter", "auto")]
)
def test_a_default_that_is_spelled_out_asks_for_the_same_artifact(option: str, value: object) -> None:
    spelled_out, left_out = target_options(SPECS["onnx"], {option: value}), target_options(SPECS["onnx"], {})
    assert spelled_out == left_out
    assert template_key(NET, {}, spelled_out, SIGNATURE) == template_key(NET, {}, left_out, SIGNATURE)


@pytest.mark.parametrize(
    ("option", "value", "supported"),
    [
        ("runtime", "tensorrt", "'tensorrt-10'"),
        ("simplify", False, "True"),
        ("precision", "int8-dynamic", "'fp32', 'fp16', 'bf16' or 'int8'"),
    ],
)
def test_what_is_not_done_yet_is_refused_with_what_is(option: str, value: object, supported: str) -> None:
    with pytest.raises(InvalidOptions) as refused:
        target_options(SPECS["onnx"], {option: value})
    assert option in refused.value.detail
    assert supported in refused.value.detail


@pytest.mark.parametrize(
    "options",
    [
        {"keep_io_types": False},
        {"keep_io_types": False, "precision": "bf16"},
        {"activations": "static", "precision": "fp16"},
        {"budget": {"snr_db": 30}},
    ],
)
def test_what_goes_with_one_precision_is_refused_with_others(options: dict[str, object]) -> None:
    with pytest.raises(InvalidOptions, match="goes with precision"):
        target_options(SPECS["onnx"], options)


def test_a_runtime_without_ranges_that_are_found_as_it_runs_is_told_of_before_any_work() -> None:
    static = {"runtime": "opencv-4", "precision": "int8", "activations": "static"}
    with pytest.raises(InvalidOptions, match=r"^onnx: runtime .* activations=static"):
        target_options(SPECS["onnx"], {**static, "activations": "dynamic"})
    assert target_options(SPECS["onnx"], static).limits


@pytest.mark.parametrize(
    ("runtime", "precision", "more"),
    [("opencv-4", "bf16", {}), ("tensorrt-10", "int8", {}), ("tensorrt-10", "int8", {"activations": "static"})],
)
def test_a_precision_that_a_runtime_does_not_run_is_refused(runtime: str, precision: str, more: dict[str, str]) -> None:
    with pytest.raises(InvalidOptions, match=f"^onnx: runtime {runtime} does not run precision {precision}: "):
        target_options(SPECS["onnx"], {"runtime": runtime, "precision": precision, **more})


@pytest.mark.parametrize("opset", [-1, 0, 24, 65, 2**31 - 1])
def test_which_opsets_exist_is_the_exporters_to_say(opset: int) -> None:
    assert target_options(SPECS["onnx"], {"opset": opset}).opset == opset


@pytest.mark.parametrize("opset", [-(2**31) - 1, 2**31, 10**30, True, 18.5])
def test_what_is_no_number_of_an_opset_is_an_invalid_option(opset: object) -> None:
    with pytest.raises(InvalidOptions, match="opset"):
        target_options(SPECS["onnx"], {"opset": opset})
