"""An artifact that leaves its weights in the uploaded file and points into it."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import safetensors.torch
import torch
from torch import nn

from app.conversion.job import BuiltTemplate, ConversionJob, ConversionOutcome, StoredTemplate, TemplateSource
from app.conversion.pipeline import convert
from app.domain.errors import InvalidOptions
from app.targets.onnx.spec import OnnxOptions
from tests.conversion.verification.conversions import NoTemplates

PLUGIN = """
from torch import nn
from recast_plugins import Axis, InputSpec, OutputSpec, Signature, architecture


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(32, 48), nn.LayerNorm(48), nn.Linear(48, 40)

    def forward(self, x):
        return self.last(self.norm(self.first(x)).tanh())


@architecture(
    "test/net",
    family="test",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", 5, 32)),),
        axes=(Axis(name="batch"),),
        outputs=(OutputSpec(name="y"),),
    ),
)
def net() -> nn.Module:
    return Net()
"""
OVER = OnnxOptions(external_data="checkpoint", checkpoint_name="mine.bin")


class Net(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.norm, self.last = nn.Linear(32, 48), nn.LayerNorm(48), nn.Linear(48, 40)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(self.first(x)).tanh())


def converted(
    checkpoint: Path, options: OnnxOptions = OVER, templates: TemplateSource | None = None
) -> ConversionOutcome:
    """The outcome, of which the files lie in the directory ``work`` beside the checkpoint."""
    plugins, work = checkpoint.parent / "plugins", checkpoint.parent / f"work-{checkpoint.stem}"
    plugins.mkdir(exist_ok=True)
    (plugins / "net.py").write_text(PLUGIN)
    work.mkdir()
    job = ConversionJob(
        conversion_id="00000000-0000-0000-0000-000000000001",
        checkpoint=checkpoint,
        checkpoint_sha256=hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        architecture="test/net",
        options=options,
        work_dir=work,
        plugins_dir=plugins,
        checkpoint_filename=checkpoint.name,
    )
    return convert(job, lambda stage, share: None, templates or NoTemplates())


def saved(net: nn.Module, path: Path) -> Path:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(net.state_dict(), str(path))
    else:
        torch.save({"model": net.state_dict(), "epoch": 3}, path)
    return path


def laid_out(outcome: ConversionOutcome, checkpoint: Path, directory: Path, name: str = "mine.bin") -> Path:
    """The artifact with the checkpoint beside it, as a client would have them."""
    directory.mkdir()
    shutil.copy(checkpoint, directory / name)
    artifact = checkpoint.parent / f"work-{checkpoint.stem}" / outcome.report.artifact.filename
    return Path(shutil.copy(artifact, directory))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_the_graph_runs_over_the_uploaded_file_in_any_reader(suffix: str, tmp_path: Path):
    net = Net().eval()
    checkpoint = saved(net, tmp_path / f"weights{suffix}")
    outcome = converted(checkpoint)
    assert outcome.problem is None
    assert outcome.report.verification.verdict == "pass"
    artifact = laid_out(outcome, checkpoint, tmp_path / "client")

    onnx.checker.check_model(str(artifact), full_check=True)
    x = torch.randn(3, 5, 32)
    session = onnxruntime.InferenceSession(str(artifact), providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        np.testing.assert_allclose(session.run(None, {"x": x.numpy()})[0], net(x).numpy(), rtol=1e-4, atol=1e-5)
    stored = ir.load(artifact).graph.initializers["first.weight"].const_value
    assert stored is not None
    np.testing.assert_array_equal(stored.numpy(), net.first.weight.detach().numpy())


def test_report_and_file_say_which_file_must_lie_beside_and_how_much_of_it_is_used(tmp_path: Path):
    checkpoint = saved(Net(), tmp_path / "weights.pth")
    outcome = converted(checkpoint)
    beside = outcome.report.export.weights_beside
    assert beside is not None
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert (beside.filename, beside.sha256, beside.bytes) == ("mine.bin", digest, checkpoint.stat().st_size)
    assert beside.referenced_bytes == (32 * 48 + 48 * 40) * 4
    assert beside.carried_bytes == (3 * 48 + 40) * 4
    model = onnx.load(str(laid_out(outcome, checkpoint, tmp_path / "client")), load_external_data=False)
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert (told["recast.weights_sha256"], told["recast.weights_file"]) == (digest, "mine.bin")
    assert {entry.value for t in model.graph.initializer for entry in t.external_data if entry.key == "location"} == {
        "mine.bin"
    }


def test_other_weights_take_the_template_and_their_own_file(tmp_path: Path):
    first = converted(saved(Net(1), tmp_path / "first.pth"))
    built = first.template
    assert isinstance(built, BuiltTemplate)

    class Kept:
        def find(self, key: str) -> StoredTemplate:
            assert key == built.key
            return StoredTemplate(built.key, built.path, built.certificate)

    checkpoint = saved(Net(2), tmp_path / "second.safetensors")
    again = converted(checkpoint, OVER, Kept())
    assert again.report.export.template is not None
    assert again.report.export.template.state == "reused"
    assert again.report.verification.verdict == "pass"
    plain = converted(saved(Net(1), tmp_path / "plain.pth"), OnnxOptions())
    assert isinstance(plain.template, BuiltTemplate)
    assert plain.template.key != built.key  # its slots are transposed, which no uploaded file is


def test_the_name_is_that_of_the_upload_where_none_is_given(tmp_path: Path):
    outcome = converted(saved(Net(), tmp_path / "my weights.pth"), OnnxOptions(external_data="checkpoint"))
    assert outcome.report.export.weights_beside is not None
    assert outcome.report.export.weights_beside.filename == "checkpoint.pth"  # a space is no part of a plain name
    assert OnnxOptions(external_data="checkpoint").for_file("model.onnx").checkpoint_name is None
    outcome = converted(saved(Net(), tmp_path / "trained.pth"), OnnxOptions(external_data="checkpoint"))
    assert outcome.report.export.weights_beside is not None
    assert outcome.report.export.weights_beside.filename == "trained.pth"


def test_a_file_whose_tensors_are_not_the_architectures_own_is_refused_in_words(tmp_path: Path):
    torch.save(Net().state_dict(), tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(InvalidOptions, match="torch-legacy cannot be pointed into"):
        converted(tmp_path / "legacy.pth")
    saved(Net().half(), tmp_path / "half.pth")
    with pytest.raises(InvalidOptions, match=r"have to be cast: first\.weight \(float16 in the file, float32"):
        converted(tmp_path / "half.pth")


def test_what_stands_in_the_file_in_another_order_is_carried(tmp_path: Path):
    state = Net().state_dict()
    state["first.weight"] = state["first.weight"].t().contiguous().t()
    torch.save(state, tmp_path / "columns.pth")
    outcome = converted(tmp_path / "columns.pth")
    beside = outcome.report.export.weights_beside
    assert outcome.report.verification.verdict == "pass"
    assert beside is not None
    assert beside.referenced_bytes == 48 * 40 * 4


@pytest.mark.parametrize(
    "asked",
    [
        {"checkpoint_name": "a.pth"},
        {"external_data": "checkpoint", "precision": "fp16"},
        {"external_data": "checkpoint", "checkpoint_name": "../a.pth"},
        {"external_data": "checkpoint", "checkpoint_name": "dir/a.pth"},
        {"external_data": "checkpoint", "checkpoint_name": "model.onnx"},
        {"external_data": "checkpoint", "checkpoint_name": "Report.json"},
    ],
)
def test_options_that_do_not_go_together_are_refused(asked: dict[str, str]):
    with pytest.raises(ValueError, match="checkpoint"):
        OnnxOptions.model_validate(asked)
