"""A template key changes with everything that can shape a graph, and with nothing else."""

import pytest

from app.domain.architecture import ArchitectureDescription, InputSpec, Signature
from app.targets.onnx.spec import OnnxOptions
from app.targets.templating.key import WITHOUT_EFFECT, template_key, toolchain_versions
from app.targets.torchscript.spec import TorchScriptOptions

SIGNATURE = Signature(inputs=(InputSpec(name="x", shape=("batch", 3)),))
DESCRIPTION = ArchitectureDescription(
    name="lab/net", family="lab", library="lab", library_version="1", signature=SIGNATURE, source_digest="ab"
)


def key(**changes: object) -> str:
    arguments = {
        "description": DESCRIPTION,
        "architecture_options": {"width": 3, "depth": 2},
        "options": OnnxOptions(),
        "signature": SIGNATURE,
        **changes,
    }
    return template_key(**arguments)  # type: ignore[arg-type]


def test_equal_requests_have_one_key() -> None:
    assert key() == key(architecture_options={"depth": 2, "width": 3})
    assert len(key()) == 64


@pytest.mark.parametrize(
    "changes",
    [
        {"description": DESCRIPTION.model_copy(update={"name": "lab/other"})},
        {"description": DESCRIPTION.model_copy(update={"library_version": "2"})},
        {"description": DESCRIPTION.model_copy(update={"source_digest": "cd"})},
        {"architecture_options": {"width": 4, "depth": 2}},
        {"options": OnnxOptions(opset=18)},
        {"options": OnnxOptions(exporter="torchscript")},
        {"options": TorchScriptOptions()},
        {"signature": SIGNATURE.model_copy(update={"inputs": (InputSpec(name="x", shape=(2, 3)),)})},
        {"toolchain": {**toolchain_versions("onnx"), "torch": "0"}},
    ],
)
def test_what_shapes_the_graph_changes_the_key(changes: dict[str, object]) -> None:
    assert key(**changes) != key()


@pytest.mark.parametrize(
    "options",
    [
        OnnxOptions(strict=False),
        OnnxOptions(prefix="module."),
        OnnxOptions(checkpoint_key="ema"),
        OnnxOptions(on_mismatch="warn"),
        OnnxOptions(verification="full"),
        OnnxOptions(external_data=True),
    ],
)
def test_what_only_concerns_the_weights_or_the_verdict_does_not(options: OnnxOptions) -> None:
    assert key(options=options) == key()


def test_every_option_left_out_exists() -> None:
    assert set(OnnxOptions.model_fields) | set(TorchScriptOptions.model_fields) >= WITHOUT_EFFECT
