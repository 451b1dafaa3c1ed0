"""Where artifact and eager are near to each other no oracle is asked, and the verdict is what it would have been."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from app.architectures.calling import EagerModel
from app.conversion.verification import comparison
from app.conversion.verification.comparison import compare_outputs, compared_with_eager
from app.conversion.verification.eager_gate import judged_by_eager
from app.conversion.verification.oracle import reference
from app.conversion.verification.perturbation import draw_perturbations
from app.conversion.verification.probes import draw_probe
from app.conversion.verification.promotion import Trace
from app.conversion.verification.reference import Exact, Oracle, Reference
from app.conversion.verification.subject import Subject
from app.conversion.verification.tolerance import C, K, gate_of, judge, unit_roundoff
from app.conversion.verification.verify import Mode, verify
from app.domain.architecture import Axis, InputSpec, OutputSpec, Signature
from app.domain.report import Finding, VerificationReport
from tests.conversion.verification.subjects import (
    FEATURES,
    IMAGES,
    Convolutional,
    Perceptron,
    onnx_subject,
    rewrite,
    set_initializer,
    torchscript_subject,
)

pytestmark = pytest.mark.slow


def of(y32: Tensor, y64: Tensor, *, steps: bool = False, scaled: bool = False) -> Reference:
    probe = draw_probe(FEATURES, {"batch": 1}, 1, scale=2.0 if scaled else 1.0)
    trace = Trace(operations=1, steps=steps)
    return Reference(probe, {"y": y32}, trace, Oracle(None, Exact({"y": y64}, "fp64", trace)), again=lambda _: {})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("honest", [0.0, 0.3, 1.0, 3.0, 40.0, 4000.0])
def test_whatever_eagers_own_error_is_what_lies_within_the_bound_lies_within_the_gate(
    dtype: torch.dtype, honest: float
) -> None:
    generator = torch.Generator().manual_seed(int(honest * 10))
    least = C * unit_roundoff(dtype)
    near = 0
    for draw in range(200):
        y64 = torch.randn(5, 17, generator=generator, dtype=torch.float64) * 10.0 ** (draw % 7 - 3)
        noise = torch.rand(y64.shape, generator=generator, dtype=torch.float64) * 2 - 1
        y32 = (y64 + noise * honest * least * y64.abs().max()).to(dtype)
        apart = torch.rand(y64.shape, generator=generator, dtype=torch.float64) * 2 - 1
        value = (y32.double() + apart * (draw / 100) * K * least * y32.double().abs().max()).to(dtype)
        taken = of(y32, y64, scaled=True)
        judged = judged_by_eager("y", value, taken)
        if judged is not None:
            near += 1
            assert judge("y", value, gate_of(y32, y64), y64).passed
            assert compare_outputs({"y": value}, taken).result.passed
    assert near > 20


def test_what_narrows_the_gate_is_left_to_the_oracle() -> None:
    y64 = torch.randn(300, dtype=torch.float64)
    y32 = y64.float()
    other = torch.nextafter(y32, torch.full_like(y32, torch.inf))
    assert judged_by_eager("y", other, of(y32, y64, scaled=True)) is not None
    assert judged_by_eager("y", other, of(y32, y64, scaled=True, steps=True)) is None
    assert judged_by_eager("y", other.clone().index_fill_(0, torch.tensor([0]), torch.nan), of(y32, y64)) is None
    filled = y32.clone()
    filled[:5] = -1e9
    assert judged_by_eager("y", torch.nextafter(filled, filled * 2), of(filled, filled.double(), scaled=True)) is None
    parts = torch.cat([y32.view(100, 3), 1e-4 * y32.view(100, 3)], 1)
    assert judged_by_eager("y", torch.nextafter(parts, parts * 2), of(parts, parts.double())) is None
    unseen = Reference(of(y32, y64).probe, {"y": y32}, Trace(), Oracle(None), again=lambda _: {})
    assert judged_by_eager("y", other, unseen) is None


def test_integers_and_the_very_bits_of_eager_need_no_oracle() -> None:
    chosen = torch.tensor([3, 1])
    assert judged_by_eager("y", chosen.clone(), of(chosen, chosen)) is not None
    assert judged_by_eager("y", chosen + 1, of(chosen, chosen)) is None
    y32 = torch.randn(400)
    assert judged_by_eager("y", y32.clone(), of(y32, y32.double() + 1e-3, steps=True)) is not None


def test_an_output_of_another_shape_is_not_near() -> None:
    y32 = torch.randn(4)
    assert compared_with_eager({"y": y32[:3]}, of(y32, y32.double())) is None


class Attentive(nn.Module):
    """Token ids, a mask by comparison, a softmax, and an index beside a float output."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.words = nn.Embedding(30, 12)
        self.norm = nn.LayerNorm(12)
        self.head = nn.Linear(12, 7)
        self.eval()

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        x = self.norm(self.words(ids))
        scores = (x @ x.transpose(1, 2)).masked_fill((ids == 0)[:, None], -1e9)
        y = self.head(torch.softmax(scores, -1) @ x).mean(1)
        return y, y.argmax(-1)


TOKENS = Signature(
    inputs=(InputSpec.model_validate({"name": "ids", "dtype": "int64", "shape": ("batch", "length"),
                                      "distribution": {"kind": "integers", "low": 0, "high": 29}}),),
    axes=(Axis(name="batch", sample=2), Axis(name="length", sample=6)),
    outputs=(OutputSpec(name="y"), OutputSpec(name="best")),
)  # fmt: skip

NETS: list[tuple[Callable[[], nn.Module], Signature]] = [
    (Perceptron, FEATURES),
    (Convolutional, IMAGES),
    (Attentive, TOKENS),
]


def faulty(module: nn.Module, signature: Signature, directory: Path) -> Iterator[Subject]:
    """Right artifacts, then ones with a fault of each kind in their weights."""
    yield torchscript_subject(module, signature, directory)
    yield onnx_subject(module, signature, directory)
    honest = onnx_subject(module, signature, directory, exporter="torchscript")
    yield honest
    names = {tensor.name for tensor in onnx.load(honest.artifact).graph.initializer}
    for drawn in draw_perturbations(module, 8, seed=5):
        if set(drawn.tensors) <= names:

            def edit(model: onnx.ModelProto, changed: dict[str, Tensor] = drawn.tensors) -> None:
                for name, value in changed.items():
                    set_initializer(model, name, lambda _, v=value: v)  # type: ignore[misc]

            yield replace(honest, artifact=rewrite(honest.artifact, edit, directory / "faulty.onnx"))


def told(report: VerificationReport) -> tuple[object, tuple[Finding, ...]]:
    """The verdict and what it rests on; figures of single outputs stand in the details of failures only."""
    return report.verdict, report.findings


@pytest.mark.parametrize("mode", ["full", "certified"])
@pytest.mark.parametrize(("net", "signature"), NETS)
def test_over_the_faults_the_verdict_is_the_same_with_and_without_the_oracle(
    net: Callable[[], nn.Module], signature: Signature, mode: Mode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdicts = set()
    for subject in faulty(net(), signature, tmp_path):
        without = verify(subject, mode)
        with monkeypatch.context() as patch:
            patch.setattr(comparison, "compared_with_eager", lambda *_: None)
            with_oracle = verify(subject, mode)
        assert told(without) == told(with_oracle)
        verdicts.add(without.verdict)
    assert len(verdicts) > 1


def test_the_report_says_which_way_an_output_was_judged_and_honest_artifacts_need_no_oracle(tmp_path: Path) -> None:
    report = verify(onnx_subject(Perceptron(), FEATURES, tmp_path), "certified")
    (output,) = report.probes[0].outputs
    assert output.judged_by == "eager"
    assert 0 <= output.ratio <= 1
    assert output.error <= output.gate
    taken = reference(EagerModel(Perceptron(), FEATURES), draw_probe(FEATURES, {"batch": 2}, 1))
    assert not taken.oracle.asked
    assert taken.gate("y").width > 0
    assert taken.oracle.asked
