"""Single points of a verification: dims, detection, matrix, localisation, ties, golden values."""

import io
import weakref
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from app.architectures.calling import EagerModel
from app.conversion.verification.case import unhurried
from app.conversion.verification.checks import detection as detection_check
from app.conversion.verification.checks.audit import GraphConstants, complaints_of
from app.conversion.verification.checks.detection import detection_of
from app.conversion.verification.checks.latency import percentile
from app.conversion.verification.comparison import compare_outputs, ties
from app.conversion.verification.oracle import eager, reference
from app.conversion.verification.perturbation import BRAIN, HALF, KINDS, draw_perturbations, replaced
from app.conversion.verification.probes import draw_probe, draw_probes
from app.conversion.verification.promotion import OperatorCall, Trace
from app.conversion.verification.stopwatch import Stopwatch
from app.conversion.verification.verdict import settle, verdict_of
from app.conversion.verification.verify import Mode, examine, verify
from app.domain.architecture import Axis, InputSpec, Integers, OutputSpec, Signature
from app.domain.errors import InvalidOptions
from app.domain.reasons import finding_of
from app.domain.report import Finding, Reason, Verdict
from app.targets.onnx.spec import OnnxOptions
from tests.conversion.verification.subjects import (
    BATCH,
    FEATURES,
    IMAGES,
    Convolutional,
    Perceptron,
    findings,
    onnx_subject,
    set_initializer,
    torchscript_subject,
)

# --- parity of integers --------------------------------------------------------------------------------------------


class Choosing(nn.Module):
    """Gives the index of the largest of its inputs."""

    def forward(self, x: Tensor) -> Tensor:
        return (x * 3).argmax(1)


@pytest.mark.parametrize(("gap", "passed"), [(1e-9, True), (1e-2, False)])
def test_another_choice_passes_only_between_scores_that_tie(gap: float, passed: bool) -> None:
    module, signature = Choosing().eval(), FEATURES
    probe = draw_probe(signature, {"batch": 2}, 3)
    probe.inputs["x"][:] = torch.tensor([0.0, 1.0, 1.0 - gap, 0.2, 0.3, 0.4])
    taken = reference(EagerModel(module, signature), probe)
    compared = compare_outputs({"y": torch.tensor([1, 2])}, taken)
    assert compared.result.passed is passed
    assert [finding.detail[:15] for finding in ties([compared])] == (["y: 1 of 2 indic"] if passed else [])
    assert not compare_outputs({"y": torch.tensor([1, 5])}, taken).result.passed


def test_integers_that_no_choice_gave_are_exact() -> None:
    class Rounded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * 10).round().long()

    taken = reference(EagerModel(Rounded().eval(), FEATURES), draw_probe(FEATURES, {"batch": 2}, 3))
    wrong = taken.y32["y"].clone()
    wrong[0, 0] += 1
    judged = compare_outputs({"y": wrong}, taken).result
    assert not judged.passed
    assert judged.outputs[0].error == 1


def test_where_rounding_decides_how_many_rows_come_out_the_oracle_stays_with_float32() -> None:
    class Selecting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            rounded = x * 3 / 3
            return x[(rounded - x).abs().sum(1) > 0]

    taken = reference(EagerModel(Selecting().eval(), FEATURES), draw_probe(FEATURES, {"batch": 40}, 3))
    assert taken.kind == "fp32-reordered"
    assert taken.y64["y"].shape == taken.y32["y"].shape
    assert "in float64" in taken.oracle.answer.detours[0]


# --- dims ----------------------------------------------------------------------------------------------------------


def test_every_axis_of_every_input_has_a_certificate_and_only_the_frozen_one_fails(tmp_path: Path) -> None:
    signature = Signature(
        inputs=(
            InputSpec(name="a", shape=("batch", "length", 4)),
            InputSpec(name="b", shape=("batch", "length", 4)),
        ),
        axes=(Axis(name="batch", sample=2), Axis(name="length", sample=5)),
        outputs=(OutputSpec(name="y"),),
    )

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(4, 3)
            self.eval()

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.lin(a + b)

    class Short(Sum):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return super().forward(a[:, :5], b[:, :5])

    module = Sum()
    twin = Short()
    twin.load_state_dict(module.state_dict())
    honest = verify(torchscript_subject(module, signature, tmp_path))
    assert [(c.input, c.axis, c.passed) for c in honest.dims] == [
        ("a", "batch", True), ("a", "length", True), ("b", "batch", True), ("b", "length", True)
    ]  # fmt: skip
    frozen = verify(torchscript_subject(module, signature, tmp_path, of=twin))
    assert findings(frozen)[Reason.dims].detail.startswith("axis 1 (length) of a")
    assert {c.axis: c.passed for c in frozen.dims} == {"batch": True, "length": False}


# --- audits --------------------------------------------------------------------------------------------------------


def traced(*epsilons: float, gelu: str | None = None) -> Trace:
    calls = [OperatorCall("layer_norm", (("eps", eps),)) for eps in epsilons]
    calls += [OperatorCall("gelu", (("approximate", gelu),))] if gelu else []
    return Trace(calls=calls, scalars=set(epsilons))


def test_epsilons_are_matched_one_for_one() -> None:
    right = GraphConstants(norms=(("layer_norm", 1e-5), ("layer_norm", 1e-6)))
    wrong = GraphConstants(norms=(("layer_norm", 1e-5), ("layer_norm", 1e-5)))
    assert complaints_of(traced(1e-5, 1e-6), right) == []
    assert len(complaints_of(traced(1e-5, 1e-6), wrong)) == 1


def test_an_epsilon_of_a_decomposed_norm_must_be_known() -> None:
    assert complaints_of(traced(1e-5), GraphConstants(norms=(), hidden=(float(np.float32(1e-5)),))) == []
    assert len(complaints_of(traced(1e-5), GraphConstants(norms=(), hidden=(1e-4,)))) == 1


def test_counting_rules_are_left_out_where_the_graph_branches() -> None:
    graph = GraphConstants(norms=(), erf=0, straight=False)
    assert complaints_of(traced(gelu="none"), graph) == []


@pytest.mark.parametrize("opset", [16, 18, 20])
def test_honest_decompositions_at_any_opset_raise_no_complaint(opset: int, tmp_path: Path) -> None:
    report = verify(
        onnx_subject(Perceptron(), FEATURES, tmp_path, exporter="torchscript", options=OnnxOptions(opset=opset))
    )
    assert report.verdict is Verdict.passed, report.findings


# --- negative control ----------------------------------------------------------------------------------------------


def test_perturbations_leave_the_module_as_it_was() -> None:
    module = nn.LSTM(6, 6).eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    x = torch.randn(2, 1, 6)
    y = module(x)[0]
    with replaced(module, {"weight_ih_l0": module.weight_ih_l0.detach() * 2}):
        assert not torch.equal(module(x)[0], y)
    assert torch.equal(module(x)[0], y)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_tied_tensor_is_replaced_wherever_it_is_held() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(6, 6)
            self.head = nn.Linear(6, 6, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x)

    module = Tied().eval()
    with replaced(module, {"embedding.weight": torch.zeros(6, 6)}):
        assert torch.equal(module(torch.ones(1, 6)), torch.zeros(1, 6))


def test_every_kind_of_perturbation_changes_something() -> None:
    module = Convolutional()
    module.second = nn.BatchNorm2d(8)
    module.second.weight.data.uniform_(0.5, 1)
    drawn = list(draw_perturbations(module, 40, seed=0))
    state = module.state_dict()
    assert {perturbation.kind for perturbation in drawn} == set(KINDS)
    assert all(any(not torch.equal(v, state[k]) for k, v in drawn_.tensors.items()) for drawn_ in drawn)


@pytest.mark.parametrize(("coarseness", "none"), [(1.0, set()), (2.0**13, {HALF}), (2.0**16, {HALF, BRAIN})])
def test_what_a_precision_rounds_anyway_is_no_fault_of_its_file(coarseness: float, none: set[str]) -> None:
    model = EagerModel(Perceptron().eval(), FEATURES)
    references = [reference(model, probe, coarseness) for probe in draw_probes(FEATURES, 1)]
    measured = detection_of(model, references, 1, unhurried)
    assert measured is not None
    assert {HALF, BRAIN} - {trial.perturbation for trial in measured.trials} == none


def test_one_perturbation_is_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may be as large as all weights."""
    held: list[weakref.ref[Tensor]] = []
    replaced_by = detection_check.replaced

    def watched(module: nn.Module, tensors: Mapping[str, Tensor]) -> AbstractContextManager[None]:
        held[:] = [each for each in held if each() is not None] + [weakref.ref(tensors[key]) for key in tensors]
        assert len(held) == len(tensors)
        return replaced_by(module, tensors)

    monkeypatch.setattr(detection_check, "replaced", watched)
    references = [reference(EagerModel(Perceptron().eval(), FEATURES), probe) for probe in draw_probes(FEATURES, 1)]
    measured = detection_of(EagerModel(Perceptron().eval(), FEATURES), references, 1, unhurried)
    assert measured is not None
    assert len(measured.trials) > 8
    assert held[0]() is None


def test_a_layer_that_hardly_matters_is_named_blind() -> None:
    class Drowned(Perceptron):
        """Its side branch is a millionth of a millionth of the output."""

        def __init__(self) -> None:
            super().__init__()
            self.side = nn.Linear(6, 4, bias=False)
            self.eval()

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 1e-12 * self.side(x)

    module = Drowned()
    references = [reference(EagerModel(module, FEATURES), probe) for probe in draw_probes(FEATURES, 1)]
    measured = detection_of(EagerModel(module, FEATURES), references, 1, unhurried)
    assert measured is not None
    assert measured.blind_layers == ("side",)
    assert 0.5 < measured.power < 1


def test_a_coarse_gate_hides_faults_but_makes_no_layer_blind() -> None:
    model = EagerModel(Perceptron().eval(), FEATURES)
    fine, coarse = (
        detection_of(model, [reference(model, probe, c) for probe in draw_probes(FEATURES, 1)], 1, unhurried)
        for c in (1.0, 2.0**13)
    )
    assert fine is not None
    assert coarse is not None
    assert fine.reach == fine.power
    assert coarse.power < coarse.reach
    assert {trial.layer for trial in coarse.trials if trial.reached}.isdisjoint(coarse.blind_layers)
    assert all(trial.reached for trial in coarse.trials if trial.seen)


def test_a_module_without_weights_has_no_negative_control() -> None:
    references = [reference(EagerModel(Choosing().eval(), FEATURES), probe) for probe in draw_probes(FEATURES, 1)]
    assert detection_of(EagerModel(Choosing(), FEATURES), references, 1, unhurried) is None


# --- matrix and localisation ---------------------------------------------------------------------------------------


def test_an_export_only_branch_is_the_captures_fault(tmp_path: Path) -> None:
    class Workaround(Perceptron):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return y.clamp(min=0) if torch.onnx.is_in_onnx_export() else y

    for exporter in ("dynamo", "torchscript"):
        report = verify(onnx_subject(Workaround(), FEATURES, tmp_path, exporter=exporter))
        assert report.verdict is Verdict.fail
        assert report.matrix is not None
        assert report.matrix.culprit == "capture"


def test_the_matrix_shows_every_way_to_compute_the_outputs(tmp_path: Path) -> None:
    report = verify(onnx_subject(Perceptron(), FEATURES, tmp_path, measure=frozenset({"matrix"})))
    assert report.matrix is not None
    ratios = {cell.cell: cell.worst_ratio for cell in report.matrix.cells}
    assert set(ratios) == {
        "eager",
        "oracle (fp64)",
        "runtime, optimisations off",
        "runtime, optimisations on",
        "onnx reference evaluator",
        "tract",
    }
    assert all(ratio is not None and ratio <= 1 for ratio in ratios.values())


@pytest.mark.parametrize("layer", ["conv", "norm", "head"])
@pytest.mark.parametrize("target", ["onnx", "torchscript"])
def test_the_first_departing_module_is_named(target: str, layer: str, tmp_path: Path) -> None:
    module = Convolutional()
    if target == "onnx":

        def edit(model: onnx.ModelProto) -> None:
            set_initializer(model, f"{layer}.weight", lambda value: value * 1.2)

        made = onnx_subject(module, IMAGES, tmp_path, edit=edit)
    else:
        twin = Convolutional()
        with torch.no_grad():
            twin.get_parameter(f"{layer}.weight").mul_(1.2)
        made = torchscript_subject(module, IMAGES, tmp_path, of=twin)
    departure = verify(made).departure
    assert departure is not None
    assert departure.module == layer


# --- the rest ------------------------------------------------------------------------------------------------------


def test_the_golden_set_holds_inputs_oracle_outputs_and_gates(tmp_path: Path) -> None:
    made = onnx_subject(Perceptron(), FEATURES, tmp_path)
    content = examine(made).golden
    assert content is not None
    with np.load(io.BytesIO(content)) as golden:
        assert set(golden.files) == {"input/x", "output/y", "gate/y"}
        assert golden["output/y"].dtype == np.float64
        y32 = eager(EagerModel(made.module, FEATURES), {"x": torch.from_numpy(golden["input/x"])})["y"]
        assert np.abs(y32.numpy() - golden["output/y"]).max() <= golden["gate/y"]
    assert examine(made).golden == content


@pytest.mark.parametrize("mode", ["full", "certified"])
def test_the_clients_own_probes_are_judged_too(mode: Mode, tmp_path: Path) -> None:
    np.savez(tmp_path / "probes.npz", x=np.full((3, 6), 0.5, np.float32))
    report = verify(onnx_subject(Perceptron(), FEATURES, tmp_path, client_probes=tmp_path / "probes.npz"), mode)
    assert report.probes[-1].probe == "client"
    assert report.probes[-1].passed


class Tokens(nn.Module):
    """The mean of a table's rows."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4)
        self.eval()

    def forward(self, ids: Tensor) -> Tensor:
        return self.table(ids).mean(1)


@pytest.mark.parametrize("mode", ["full", "certified"])
def test_a_clients_probe_on_which_the_model_fails_is_refused_by_input_value_and_range(
    mode: Mode, tmp_path: Path
) -> None:
    ids = InputSpec(name="ids", dtype="int64", shape=("batch", 3), distribution=Integers(low=0, high=9))
    signature = Signature(inputs=(ids,), axes=(BATCH,), outputs=(OutputSpec(name="y"),))
    np.savez(tmp_path / "probes.npz", ids=np.array([[1, 2, 3], [4, 10, 5]]))
    made = onnx_subject(Tokens(), signature, tmp_path, client_probes=tmp_path / "probes.npz")
    with pytest.raises(InvalidOptions, match=r"'client' \(batch 2\): input 'ids' holds 10, where 0 to 9 is declared"):
        verify(made, mode)


def test_certified_mode_proves_the_weights_with_one_probe(tmp_path: Path) -> None:
    def edit(model: onnx.ModelProto) -> None:
        set_initializer(model, "last.bias", torch.zeros_like)

    report = verify(onnx_subject(Perceptron(), FEATURES, tmp_path), "certified")
    assert (report.verdict, len(report.probes), report.mode) == (Verdict.passed, 1, "certified")
    assert report.ledger is not None
    faulty = verify(onnx_subject(Perceptron(), FEATURES, tmp_path, edit=edit), "certified")
    assert {Reason.parity, Reason.ledger} <= set(findings(faulty))


def test_a_full_verification_runs_the_model_no_more_often_than_its_points_need(tmp_path: Path) -> None:
    """Of a small net: the negative control asks the oracle of all probes; its trials are counted apart."""
    subject = onnx_subject(Perceptron(), FEATURES, tmp_path)
    forwards = 0

    def count(module: nn.Module, _: object) -> None:
        nonlocal forwards
        forwards += 1

    subject.module.register_forward_pre_hook(count)
    report = verify(subject)
    assert report.detection is not None
    probes, oracles, repeats, as_exported, extremes, zeros, writes, sizes_and_decisions = 5, 5, 2, 1, 3, 1, 1, 5
    needed = probes + oracles + repeats + as_exported + extremes + zeros + writes + sizes_and_decisions
    assert forwards - len(report.detection.trials) <= needed


def test_torch_is_left_as_it_was(tmp_path: Path) -> None:
    torch.set_num_threads(2)
    before = (torch.are_deterministic_algorithms_enabled(), torch.get_default_dtype())
    verify(onnx_subject(Perceptron(), FEATURES, tmp_path))
    assert (torch.are_deterministic_algorithms_enabled(), torch.get_default_dtype()) == before
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("severities", "verdict"),
    [
        ((), Verdict.passed),
        (("note",), Verdict.pass_with_notes),
        (("note", "inconclusive"), Verdict.inconclusive),
        (("inconclusive", "fail", "note"), Verdict.fail),
    ],
)
def test_the_gravest_finding_decides(severities: tuple[str, ...], verdict: Verdict) -> None:
    made = [Finding(reason=Reason.not_strict, severity=s, detail=s) for s in severities]
    assert verdict_of(settle(made)) is verdict


def test_a_stochastic_module_silences_comparisons_but_not_the_ledger() -> None:
    noise = finding_of(Reason.nondeterministic, "noise")
    parity = finding_of(Reason.parity, "differs")
    assert verdict_of(settle([parity, noise])) is Verdict.inconclusive
    assert (
        verdict_of(settle([finding_of(Reason.ledger, "a tensor"), noise, finding_of(Reason.not_strict, "n")]))
        is Verdict.fail
    )


def test_percentiles_are_of_the_nearest_rank() -> None:
    values = [float(n) for n in range(1, 21)]
    assert (percentile(values, 50), percentile(values, 95), percentile([3.0], 95)) == (10.0, 19.0, 3.0)


def test_time_is_added_up_by_part() -> None:
    watch = Stopwatch()
    for _ in range(2):
        with watch.part("oracle"):
            pass
    assert list(watch.seconds) == ["oracle"]
