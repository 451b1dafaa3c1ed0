"""A certified verification has one probe; its sensitivity is measured against another draw that really differs."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from app.architectures.calling import EagerModel, call
from app.conversion.verification.case import Case, unhurried
from app.conversion.verification.checks.sensitivity import sensitivity
from app.conversion.verification.eager_side import take_references
from app.conversion.verification.probes import draw_probe
from app.domain.architecture import Axis, InputSpec, Integers, Signature
from app.domain.report import ExportReport
from tests.conversion.verification.subjects import subject

TOKENS = InputSpec(name="tokens", dtype="int64", shape=("batch", "sequence"), distribution=Integers(low=0, high=2))
SIGNATURE = Signature(inputs=(TOKENS,), axes=(Axis(name="batch"), Axis(name="sequence", sample=4)))
NEVER_READ = ExportReport(target="onnx", exporter="dynamo")


class Lookup(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(3, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        values: Tensor = self.table(tokens)
        return values


class Itself:
    """The model in the place of its artifact."""

    names_outputs = True

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return call(EagerModel(self.module, SIGNATURE), inputs)


def test_one_token_that_is_drawn_again_is_no_lack_of_sensitivity(tmp_path):
    torch.manual_seed(0)
    module = Lookup().eval()
    for seed in range(12):
        made = subject(module, SIGNATURE, tmp_path / "model.onnx", NEVER_READ, seed=seed)
        case = Case(made)
        case.adopt(take_references(made, [draw_probe(SIGNATURE, {"batch": 1, "sequence": 1}, seed)], unhurried))
        case.runner = Itself(module)
        sensitivity.run(case)
        assert case.sensitivity is not None
        assert not case.findings, (seed, case.findings)
