"""Probes outside the declared distribution are case only where the model itself is sure of its answer."""

import pytest
import torch
from torch import Tensor, nn

from app.architectures.calling import EagerModel, call
from app.conversion.verification.case import Case, unhurried
from app.conversion.verification.checks.parity import parity
from app.conversion.verification.eager_side import full_probes, take_references
from app.domain.architecture import InputSpec, Signature
from app.domain.report import ExportReport
from tests.conversion.verification.subjects import subject

SIGNATURE = Signature(inputs=(InputSpec(name="x", shape=("batch", 4)),))
NEVER_READ = ExportReport(target="onnx", exporter="dynamo")


class Chaotic(nn.Module):
    """Repeats the logistic map, which doubles every rounding error, once its input is large."""

    def forward(self, x: Tensor) -> Tensor:
        y = torch.sigmoid(x)
        for _ in range(40):
            y = torch.where(x.abs().amax() > 5, 3.9 * y * (1 - y), y)
        return y


class Lucky(nn.Module):
    """Exact in float32, so that eager is not off at all; yet its input's last bits decide once it is large."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x.abs().amax() > 5, torch.remainder(x * 2.0**18, 1.0), x)


def case_of(module: nn.Module, tmp_path) -> Case:
    made = subject(module.eval(), SIGNATURE, tmp_path / "model.onnx", NEVER_READ, seed=3)
    case = Case(made)
    case.adopt(take_references(made, full_probes(made), unhurried))
    return case


class RoundedOtherwise:
    """The model in the place of its artifact, with results off by about a gate where the inputs are large."""

    names_outputs = True

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def run(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        outputs = call(EagerModel(self.module, SIGNATURE), inputs)
        return {n: v * (1 + 2e-5) if inputs["x"].abs().max() > 5 else v for n, v in outputs.items()}


@pytest.mark.parametrize("model", [Chaotic, Lucky])
def test_a_scale_at_which_the_model_amplifies_rounding_is_skipped_with_the_reason(model: type[nn.Module], tmp_path):
    module = model()
    case = case_of(module, tmp_path)
    case.runner = RoundedOtherwise(module)
    parity.run(case)
    assert [result.probe for result in case.skipped] == ["large scale"]
    assert "amplifies rounding" in (case.skipped[0].reason or "")
    assert not case.findings


def test_a_well_conditioned_model_keeps_all_its_probes(tmp_path):
    torch.manual_seed(0)
    case = case_of(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)), tmp_path)
    assert not case.skipped
    assert len(case.references) == 5
