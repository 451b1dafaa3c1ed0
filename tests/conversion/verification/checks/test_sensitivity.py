"""Whether outputs move enough is a fact of the model, not of the draw or of the dtype."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from app.architectures.calling import EagerModel, call
from app.conversion.verification.case import Case, unhurried
from app.conversion.verification.checks.parity import parity
from app.conversion.verification.checks.sensitivity import sensitivity
from app.conversion.verification.eager_side import certified_probes, full_probes, take_references
from app.conversion.verification.subject import Subject
from app.domain.architecture import Axis, InputSpec, Integers, Mask, OutputSpec, Signature
from app.domain.report import ExportReport, Reason
from tests.conversion.verification.subjects import FEATURES, subject

NEVER_READ = ExportReport(target="torchscript", exporter="trace")
SENTENCES = Signature(
    inputs=(
        InputSpec(name="ids", dtype="int64", shape=("batch", "length"), distribution=Integers(low=0, high=99)),
        InputSpec(name="mask", dtype="int64", shape=("batch", "length"), distribution=Mask()),
    ),
    axes=(Axis(name="batch", sample=2), Axis(name="length", sample=24)),
    outputs=(OutputSpec(name="embedding"),),
)


class Sentence(nn.Module):
    """A BERT-like encoder whose first token, always the same but for its position, drowns what a word says alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.words = nn.Embedding(100, 32)
        self.position = nn.Parameter(torch.randn(64, 32))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, activation="gelu") for _ in range(2)
        )
        with torch.no_grad():
            self.words.weight.mul_(3e-6)
        self.eval()

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        length = ids.shape[1]
        seen = torch.arange(length).float() * (ids.float() % 7) * 0.1
        x = self.words(ids) + self.position[:length] + seen[..., None]
        for layer in self.layers:
            x = layer(x)
        kept = mask[..., None].to(x.dtype)
        pooled = (x * kept).sum(1) / kept.sum(1).clamp(min=1e-9)
        return nn.functional.normalize(pooled, dim=-1)


class InPlaceOf:
    """The model in the place of its artifact."""

    names_outputs = True

    def __init__(self, model: EagerModel) -> None:
        self.model = model

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return call(self.model, inputs)


def judged(made: Subject, *, full: bool = False) -> Case:
    case = Case(made)
    probes = full_probes(made) if full else certified_probes(made)
    case.adopt(take_references(made, probes, unhurried))
    case.runner = InPlaceOf(made)
    parity.run(case)
    sensitivity.run(case)
    return case


def test_repeats_of_a_sentence_encoder_are_never_in_doubt_whatever_is_drawn(tmp_path: Path) -> None:
    made = subject(Sentence(), SENTENCES, tmp_path / "model.pt", NEVER_READ)
    doubted, single = [], 0
    for seed in range(40):
        case = judged(replace(made, seed=seed))
        single += case.references[0].probe.sizes["length"] == 1
        doubted += [finding for finding in case.findings if finding.reason is Reason.insensitive]
    assert single > 5
    assert not doubted


class Net(nn.Module):
    def __init__(self, dtype: torch.dtype, weight: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.dtype = dtype
        self.layers = nn.Sequential(
            nn.Linear(6, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 4)
        ).to(dtype)
        with torch.no_grad():
            self.layers[-1].weight.mul_(weight)
            self.layers[-1].bias.add_(1)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.to(self.dtype)).float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("full", [True, False])
def test_a_net_in_half_precision_moves_enough_and_one_with_a_dead_head_does_not(
    dtype: torch.dtype, full: bool, tmp_path: Path
) -> None:
    alive = subject(Net(dtype), FEATURES, tmp_path / "model.pt", NEVER_READ)
    dead = subject(Net(dtype, weight=1e-9), FEATURES, tmp_path / "model.pt", NEVER_READ)
    for seed in range(6):
        assert not judged(replace(alive, seed=seed), full=full).findings
        found = judged(replace(dead, seed=seed), full=full)
        assert [finding.reason for finding in found.findings] == [Reason.insensitive]
        assert found.sensitivity is not None
        assert found.sensitivity.per_output["y"] < 4


class Rounded(InPlaceOf):
    """The model in the place of an artifact whose outputs were computed with fewer bits."""

    def __init__(self, model: EagerModel, dtype: torch.dtype) -> None:
        super().__init__(model)
        self.dtype = dtype

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.to(self.dtype).float() for name, value in super().run(inputs).items()}


@pytest.mark.parametrize(("dtype", "coarseness"), [(torch.float16, 2.0**13), (torch.bfloat16, 2.0**16)])
def test_how_much_an_artifact_of_fewer_bits_moves_is_told_by_its_own_errors_without_the_oracle(
    dtype: torch.dtype, coarseness: float, tmp_path: Path
) -> None:
    def measured(weight: float, seed: int) -> Case:
        made = subject(Net(torch.float32, weight), FEATURES, tmp_path / "model.pt", NEVER_READ, seed=seed)
        case = Case(replace(made, coarseness=coarseness))
        case.adopt(take_references(case.subject, certified_probes(case.subject), unhurried))
        case.runner = Rounded(made, dtype)
        parity.run(case)
        sensitivity.run(case)
        return case

    for seed in range(6):
        alive, dead = measured(30.0, seed), measured(1e-9, seed)
        assert not alive.findings
        assert not any(taken.oracle.asked for taken in alive.references)
        assert [finding.reason for finding in dead.findings] == [Reason.insensitive]


class Cancelling(Net):
    """Its rounding is that of numbers hundreds of times as large as its outputs."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 2000 - 2000


class OffByTenths(InPlaceOf):
    """The model in the place of an artifact that is off by nearly the least gate of bfloat16."""

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value + 0.1 * value.abs().max() for name, value in super().run(inputs).items()}


def test_an_artifacts_error_is_held_against_moves_in_one_unit(tmp_path: Path) -> None:
    for seed in range(6):
        made = subject(Cancelling(torch.float32), FEATURES, tmp_path / "model.pt", NEVER_READ, seed=seed)
        case = Case(replace(made, coarseness=2.0**16))
        case.adopt(take_references(case.subject, certified_probes(case.subject), unhurried))
        case.runner = OffByTenths(made)
        parity.run(case)
        sensitivity.run(case)
        assert not case.findings, (case.findings, case.sensitivity)
        assert all(output.judged_by == "eager" for c in case.compared for output in c.result.outputs)
