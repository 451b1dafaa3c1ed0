"""The client's options applied to an architecture's signature."""

import pytest

from app.domain.architecture import Axis, InputSpec, OutputSpec, Signature
from app.domain.errors import InvalidOptions
from app.targets.onnx.spec import OnnxOptions
from app.targets.request import requested_signature
from app.targets.torchscript.spec import TorchScriptOptions
from app.targets.writer import writer_of

SIGNATURE = Signature(
    inputs=(
        InputSpec(name="image", shape=("batch", 3, 32, 32)),
        InputSpec(name="mask", dtype="int64", shape=("batch", "length")),
    ),
    axes=(Axis(name="batch", sample=1), Axis(name="length", minimum=4, maximum=64, sample=16, multiple_of=4)),
    outputs=(OutputSpec(name="logits"),),
)


def applied(**options: object) -> Signature:
    return requested_signature(SIGNATURE, OnnxOptions.model_validate(options))


def test_without_options_only_the_sample_batch_grows_to_two() -> None:
    signature = applied()
    assert signature.inputs == SIGNATURE.inputs
    assert [axis.sample for axis in signature.axes] == [2, 16]


def test_empty_dynamic_axes_fix_every_size() -> None:
    signature = applied(dynamic_axes={})
    assert [spec.shape for spec in signature.inputs] == [(1, 3, 32, 32), (1, 16)]
    assert signature.axes == ()


def test_dynamic_axes_rename_declared_axes_and_keep_their_bounds() -> None:
    signature = applied(dynamic_axes={"image": {0: "N"}, "mask": {0: "N", -1: "T"}})
    assert [spec.shape for spec in signature.inputs] == [("N", 3, 32, 32), ("N", "T")]
    assert signature.axis("T") == Axis(name="T", minimum=4, maximum=64, sample=16, multiple_of=4)


def test_a_fixed_size_asked_to_vary_may_grow_from_where_it_is() -> None:
    signature = applied(dynamic_axes={"image": {2: "height"}})
    assert signature.axis("height") == Axis(name="height", minimum=32, sample=32)


def test_inputs_may_be_called_by_their_new_names_and_keep_their_argument() -> None:
    signature = applied(input_names=["x", "m"], output_names=["y"], dynamic_axes={"x": {0: "N"}})
    assert [(spec.name, spec.argument) for spec in signature.inputs] == [("x", "image"), ("m", "mask")]
    assert signature.inputs[0].shape == ("N", 3, 32, 32)
    assert [spec.name for spec in signature.outputs] == ["y"]


def test_example_shapes_set_samples_and_fixed_sizes() -> None:
    signature = applied(example_shapes={"image": [4, 3, 64, 48], "mask": [4, 8]})
    assert signature.inputs[0].shape == ("batch", 3, 64, 48)
    assert [axis.sample for axis in signature.axes] == [4, 8]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dynamic_axes": {"nothing": {0: "N"}}}, "the inputs are image, mask"),
        ({"dynamic_axes": {"image": {4: "N"}}}, "has 4 axes"),
        ({"dynamic_axes": {"image": {0: "two words"}}}, "no name for an axis"),
        ({"dynamic_axes": {"image": {0: "a", 2: "a"}}}, "different sizes"),
        ({"example_shapes": {"image": [1, 3]}}, "one size"),
        ({"example_shapes": {"image": [0, 3, 32, 32]}}, "at least 1"),
        ({"example_shapes": {"image": [2, 3, 32, 32], "mask": [3, 8]}}, "two sizes"),
        ({"example_shapes": {"mask": [2, 6]}}, "multiples of 4"),
        ({"input_names": ["x"]}, "2 inputs"),
        ({"input_names": ["x", "x"]}, "must differ"),
        ({"output_names": ["a", "b"]}, "1 outputs"),
        ({"output_names": [""]}, "not be empty"),
    ],
)
def test_impossible_options_are_refused_in_words(options: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidOptions, match=words):
        applied(**options)


def test_the_ladder_tries_every_exporter_of_the_target_or_the_one_asked_for() -> None:
    assert writer_of("onnx").exporters(OnnxOptions()) == (
        "torchscript",
        "dynamo",
        "torchscript",
        "torchscript-scripted",
    )
    assert writer_of("onnx").exporters(OnnxOptions(exporter="torchscript")) == ("torchscript", "torchscript-scripted")
    assert writer_of("torchscript").exporters(TorchScriptOptions()) == ("trace", "script")
    assert writer_of("torchscript").exporters(TorchScriptOptions(method="script")) == ("script",)
