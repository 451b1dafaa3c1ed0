"""Architectures whose weights an optimiser would fold, merge or drop: their templates serve other weights as well."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from app.architectures.registry import load_registry
from app.architectures.sample import sample_inputs
from app.conversion.verification.verify import verify
from app.domain.architecture import Axis, InputSpec, Signature
from app.domain.report import Verdict
from app.targets.onnx.spec import OnnxOptions
from app.targets.request import ExportRequest
from app.targets.writer import writer_of
from tests.conversion.verification.subjects import subject
from tests.targets.capturing import train_a_little

pytestmark = pytest.mark.slow

IMAGES = Signature(inputs=(InputSpec(name="x", shape=("batch", 3, 8, 8)),), axes=(Axis(name="batch"),))
FEATURES = Signature(inputs=(InputSpec(name="x", shape=("batch", 6)),), axes=(Axis(name="batch"),))


class Head(nn.Module):
    """What comes before, averaged over the image, and a linear layer."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.last = body, nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.body(x)).mean((2, 3)))


class Scaled(nn.Module):
    """Scalars that multiply by exactly 1 and add exactly 0 before they are trained."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(6, 4)
        self.scale, self.gain = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.ones(1))
        self.shift = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x) * self.scale * self.gain + self.shift


class Symmetric(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).t()


def transposed_with_norm() -> nn.Module:
    return Head(nn.Sequential(nn.ConvTranspose2d(3, 8, 2, stride=2), nn.BatchNorm2d(8)))


def grouped_transposed_with_norm() -> nn.Module:
    first = nn.Conv2d(3, 4, 1)
    return Head(nn.Sequential(first, nn.ConvTranspose2d(4, 8, 2, stride=2, groups=2, bias=False), nn.BatchNorm2d(8)))


def instance_norm() -> nn.Module:
    return Head(nn.Sequential(nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8, affine=True, track_running_stats=True)))


def weight_normed() -> nn.Module:
    return Head(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3)))


def weight_normed_by_hook() -> nn.Module:
    return Head(nn.utils.weight_norm(nn.Conv2d(3, 8, 3)))


def parametrised() -> nn.Module:
    layer = nn.Linear(6, 6)
    nn.utils.parametrize.register_parametrization(layer, "weight", Symmetric())
    return nn.Sequential(layer, nn.Tanh(), nn.utils.parametrizations.spectral_norm(nn.Linear(6, 4)))


NETS = {
    "transposed_with_norm": (transposed_with_norm, IMAGES),
    "grouped_transposed_with_norm": (grouped_transposed_with_norm, IMAGES),
    "instance_norm": (instance_norm, IMAGES),
    "weight_normed": (weight_normed, IMAGES),
    "weight_normed_by_hook": (weight_normed_by_hook, IMAGES),
    "scaled": (Scaled, FEATURES),
    "parametrised": (parametrised, FEATURES),
}
TINY: dict[str, dict[str, Any]] = {
    "transformers/t5": {
        **{"d_model": 32, "d_kv": 8, "d_ff": 64, "vocab_size": 100},
        **{"num_layers": 1, "num_decoder_layers": 1, "num_heads": 4},
    },
    "transformers/mpnet": {
        **{"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4},
        **{"intermediate_size": 64, "vocab_size": 100},
    },
    "transformers/swinv2": {
        **{"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4]},
        **{"image_size": 32, "patch_size": 4, "window_size": 4},
    },
}


def serves_others(first: nn.Module, other: nn.Module, signature: Signature, exporter: str, directory: Path) -> None:
    """Fill a template of the first module's graph with both modules' weights and verify both artifacts."""
    target = writer_of("onnx")
    sample = sample_inputs(signature, {}, torch.Generator().manual_seed(0))
    request = ExportRequest(first.eval(), signature, OnnxOptions(), sample)
    captured = target.capture(request, exporter)
    template = target.build_template(captured, request, directory / "template")
    assert template.against_reuse is None
    for number, module in enumerate((first, other)):
        (directory / str(number)).mkdir()
        own = ExportRequest(module.eval(), signature, OnnxOptions(), sample)
        written = target.fill(template, module.state_dict(), own, directory / str(number) / "model.onnx")
        assert target.is_filled(template, written)
        report = verify(
            subject(
                module,
                signature,
                written.path,
                target.report(template, own),
                claims=target.claims(template),
                kept=captured.kept,
            )
        )
        assert report.verdict in (Verdict.passed, Verdict.pass_with_notes), report.findings


# The TorchScript-based exporter has no instance norm with a dynamic batch and no dot product of vectors, and its trace
# leaves the weight that a hook made in the module.
BY_DYNAMO_ONLY = {"instance_norm", "parametrised", "weight_normed_by_hook"}


@pytest.mark.parametrize(
    ("name", "exporter"),
    [(name, "dynamo") for name in NETS] + [(name, "torchscript") for name in NETS if name not in BY_DYNAMO_ONLY],
)
def test_a_template_of_difficult_weights_serves_others(name: str, exporter: str, tmp_path: Path) -> None:
    build, signature = NETS[name]
    modules = []
    for seed in (1, 2):
        torch.manual_seed(0)  # as the registry builds: what is no weight is the same in both
        modules.append(train_a_little(build(), seed))
    serves_others(*modules, signature, exporter, tmp_path)


@pytest.mark.parametrize("name", TINY)
def test_a_template_of_a_library_model_serves_others(name: str, tmp_path: Path) -> None:
    registry, options = load_registry(None), TINY[name]
    signature = registry.resolve(name, options).signature
    modules = [registry.build(name, options, initialised=True) for _ in range(2)]
    with torch.no_grad():
        for number, module in enumerate(modules):
            generator = torch.Generator().manual_seed(number)
            for parameter in module.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    serves_others(*modules, signature, "dynamo", tmp_path)
