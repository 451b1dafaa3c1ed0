"""Every reason code is reached by a real artifact, and an honest one is a plain pass."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from app.conversion.verification.verify import verify
from app.domain.architecture import InputSpec, Mask, Signature
from app.domain.checkpoint import LoadReport
from app.domain.report import Certificate, ExportReport, Reason, Verdict, VerificationReport
from tests.conversion.verification.subjects import (
    FEATURES,
    IMAGES,
    Convolutional,
    Perceptron,
    findings,
    onnx_subject,
    set_initializer,
    subject,
    torchscript_subject,
)


def assert_fails(report: VerificationReport, reason: Reason) -> None:
    assert report.verdict is Verdict.fail
    assert findings(report)[reason].severity == "fail"
    assert VerificationReport.model_validate_json(report.model_dump_json()) == report


def assert_inconclusive(report: VerificationReport, reason: Reason) -> None:
    assert report.verdict is Verdict.inconclusive, report.findings
    assert findings(report)[reason].severity == "inconclusive"


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize(("module", "signature"), [(Perceptron(), FEATURES), (Convolutional(), IMAGES)])
def test_an_honest_onnx_artifact_passes(module: nn.Module, signature: Signature, exporter: str, tmp_path: Path) -> None:
    asked = frozenset({"latency", "matrix"})
    report = verify(onnx_subject(module, signature, tmp_path, exporter=exporter, measure=asked))
    assert report.verdict is Verdict.passed, report.findings
    assert len(report.probes) == 5
    assert report.worst_ratio < 1
    assert report.deterministic
    assert report.eval_mode
    assert report.dims[0].delivered == "dynamic"
    assert report.ledger is not None
    assert report.ledger.passed
    assert report.matrix is not None
    assert report.matrix.culprit is None
    assert report.latency is not None


def test_an_honest_torchscript_artifact_passes(tmp_path: Path) -> None:
    report = verify(torchscript_subject(Convolutional(), IMAGES, tmp_path))
    assert report.verdict is Verdict.passed, report.findings
    assert {trial.size for trial in report.dims[0].trials} == {1, 2, 3}


# --- fail ----------------------------------------------------------------------------------------------------------


def test_a_changed_weight_fails_parity_and_ledger_and_the_module_is_named(tmp_path: Path) -> None:
    def edit(model: onnx.ModelProto) -> None:
        set_initializer(model, "norm.weight", lambda value: value * 1.1)

    report = verify(onnx_subject(Perceptron(), FEATURES, tmp_path, edit=edit))
    assert_fails(report, Reason.parity)
    assert_fails(report, Reason.ledger)
    assert report.departure is not None
    assert report.departure.module == "norm"
    assert report.matrix is not None
    assert report.matrix.culprit == "translation"


def test_a_weight_too_small_to_be_seen_fails_the_ledger_alone(tmp_path: Path) -> None:
    def edit(model: onnx.ModelProto) -> None:
        set_initializer(model, "first.weight", lambda value: torch.nextafter(value, value + 1))

    report = verify(onnx_subject(Perceptron(), FEATURES, tmp_path, edit=edit))
    assert_fails(report, Reason.ledger)
    assert Reason.parity not in findings(report)


def test_an_output_of_another_dtype_or_name_fails_output_structure(tmp_path: Path) -> None:
    class Wider(Perceptron):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).double()

    assert_fails(verify(onnx_subject(Perceptron(), FEATURES, tmp_path, of=Wider())), Reason.output_structure)


def test_nan_weights_fail_non_finite_and_are_noted(tmp_path: Path) -> None:
    module = Perceptron()
    with torch.no_grad():
        module.last.weight[0, 0] = float("nan")
    report = verify(onnx_subject(module, FEATURES, tmp_path))
    assert_fails(report, Reason.non_finite)
    assert Reason.non_finite_weights in findings(report)


def test_an_axis_that_the_file_fixes_fails_dims(tmp_path: Path) -> None:
    spec = FEATURES.inputs[0].model_copy(update={"shape": (2, 6)})
    static = FEATURES.model_copy(update={"inputs": (spec,), "axes": ()})
    report = verify(onnx_subject(Perceptron(), FEATURES, tmp_path, exported_as=static))
    assert_fails(report, Reason.dims)
    assert report.dims[0].delivered == "static"


def test_an_axis_that_the_code_fixes_fails_dims_whatever_the_file_says(tmp_path: Path) -> None:
    class Unrolled(Perceptron):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x[:2])

    report = verify(torchscript_subject(Perceptron(), FEATURES, tmp_path, of=Unrolled()))
    assert_fails(report, Reason.dims)
    assert [(trial.size, trial.passed) for trial in report.dims[0].trials] == [(1, True), (2, True), (3, False)]


def test_an_opset_other_than_claimed_fails_opset(tmp_path: Path) -> None:
    made = onnx_subject(Perceptron(), FEATURES, tmp_path)
    lied = made.export.model_copy(update={"opset": made.export.opset - 1})
    assert_fails(verify(subject(made.module, FEATURES, made.artifact, lied)), Reason.opset)


def test_a_module_left_in_training_mode_fails_training_mode(tmp_path: Path) -> None:
    made = onnx_subject(Convolutional(), IMAGES, tmp_path)
    made.module.norm.train()
    report = verify(made)
    assert_fails(report, Reason.training_mode)
    assert report.eval_mode is False


def test_a_training_operator_in_the_graph_fails_training_mode(tmp_path: Path) -> None:
    def edit(model: onnx.ModelProto) -> None:
        last = model.graph.node[-1]
        name, last.output[0] = last.output[0], "before"
        model.graph.initializer.extend(
            [
                onnx.numpy_helper.from_array(torch.tensor(0.0).numpy(), "ratio"),
                onnx.numpy_helper.from_array(torch.tensor(True).numpy(), "training"),
            ]
        )
        model.graph.node.append(onnx.helper.make_node("Dropout", ["before", "ratio", "training"], [name]))

    report = verify(onnx_subject(Perceptron(), FEATURES, tmp_path, edit=edit))
    assert_fails(report, Reason.training_mode)
    assert Reason.parity not in findings(report)


def test_a_larger_epsilon_fails_attributes_where_parity_is_blind(tmp_path: Path) -> None:
    class Loud(Perceptron):
        """Its variances are so large that the epsilon hardly matters."""

        def __init__(self, eps: float) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(16, eps=eps)
            with torch.no_grad():
                self.first.weight.mul_(1e6)
                self.first.bias.mul_(1e6)
            self.eval()

    report = verify(onnx_subject(Loud(1e-6), FEATURES, tmp_path, of=Loud(1e-5)))
    assert_fails(report, Reason.attributes)
    assert Reason.parity not in findings(report)


def test_the_other_gelu_fails_attributes(tmp_path: Path) -> None:
    twin = Perceptron()
    twin.act = nn.GELU(approximate="tanh").eval()
    for made in (
        onnx_subject(Perceptron(), FEATURES, tmp_path, of=twin),
        torchscript_subject(Perceptron(), FEATURES, tmp_path, of=twin),
    ):
        assert_fails(verify(made), Reason.attributes)


def test_an_invalid_graph_fails_checker(tmp_path: Path) -> None:
    def edit(model: onnx.ModelProto) -> None:
        model.graph.node.append(onnx.helper.make_node("NoSuchOperator", ["x"], ["unused"]))

    assert_fails(verify(onnx_subject(Perceptron(), FEATURES, tmp_path, edit=edit)), Reason.checker)


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04"])
@pytest.mark.parametrize("target", ["onnx", "torchscript"])
def test_a_file_that_the_runtime_refuses_fails_runtime_and_raises_nothing(
    target: str, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "artifact"
    path.write_bytes(content)
    for mode in ("full", "certified"):
        report = verify(subject(Perceptron(), FEATURES, path, ExportReport(target=target, exporter="none")), mode)
        assert_fails(report, Reason.runtime)


# --- inconclusive --------------------------------------------------------------------------------------------------


class Constant(nn.Module):
    """Looks at its input and answers always the same."""

    def __init__(self) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.randn(4))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.level + x[:, :4] * 0


@pytest.mark.parametrize("mode", ["full", "certified"])
def test_a_constant_net_and_a_zero_head_are_inconclusive(mode: str, tmp_path: Path) -> None:
    zero_head = Perceptron()
    nn.init.zeros_(zero_head.last.weight)
    for module in (Constant(), zero_head):
        assert_inconclusive(verify(onnx_subject(module, FEATURES, tmp_path), mode), Reason.insensitive)


def test_a_signal_that_died_out_is_inconclusive(tmp_path: Path) -> None:
    module = Perceptron()
    with torch.no_grad():
        module.last.weight.mul_(1e-9)
    assert_inconclusive(verify(onnx_subject(module, FEATURES, tmp_path)), Reason.insensitive)


def test_a_stochastic_module_is_inconclusive_and_no_conversion_fault(tmp_path: Path) -> None:
    class Noisy(Perceptron):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + torch.rand_like(x[:, :4])

    report = verify(onnx_subject(Noisy(), FEATURES, tmp_path))
    assert_inconclusive(report, Reason.nondeterministic)
    assert Reason.parity not in findings(report)
    assert Reason.dims not in findings(report)


def test_a_model_that_runs_at_one_size_only_is_inconclusive(tmp_path: Path) -> None:
    class Paired(Perceptron):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.reshape(2, 6))

    made = torchscript_subject(Paired(), FEATURES, tmp_path)
    assert_inconclusive(verify(made), Reason.shape_specialised)


# --- notes ---------------------------------------------------------------------------------------------------------


def test_missing_keys_under_strict_false_are_never_a_plain_pass(tmp_path: Path) -> None:
    module = Convolutional()
    load = LoadReport(strict=False, missing_keys=("norm.running_mean", "norm.running_var"))
    uploaded = {name: value for name, value in module.state_dict().items() if not name.startswith("norm.running")}
    for mode in ("full", "certified"):
        report = verify(onnx_subject(module, IMAGES, tmp_path, load=load, uploaded=uploaded), mode)
        assert report.verdict is Verdict.pass_with_notes, report.findings
        assert "norm.running_mean" in findings(report)[Reason.not_strict].detail


def test_an_axis_made_static_by_the_client_is_noted(tmp_path: Path) -> None:
    spec = FEATURES.inputs[0].model_copy(update={"shape": (2, 6)})
    static = FEATURES.model_copy(update={"inputs": (spec,), "axes": ()})
    report = verify(onnx_subject(Perceptron(), static, tmp_path, declared=FEATURES))
    assert report.verdict is Verdict.pass_with_notes
    assert Reason.static_axis in findings(report)


def test_a_tensor_that_the_model_never_reads_is_noted(tmp_path: Path) -> None:
    class Spare(Perceptron):
        def __init__(self) -> None:
            super().__init__()
            self.spare = nn.Linear(3, 3)
            self.eval()

    report = verify(onnx_subject(Spare(), FEATURES, tmp_path))
    assert report.verdict is Verdict.pass_with_notes
    assert "spare.weight" in findings(report)[Reason.unused_tensors].detail


def test_a_branch_frozen_by_tracing_is_caught_by_the_turned_probe(tmp_path: Path) -> None:
    class Branching(Perceptron):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * (2 if x[0, 0] > 0 else 1)

    report = verify(torchscript_subject(Branching(), FEATURES, tmp_path))
    assert_fails(report, Reason.parity)


def test_a_branch_on_a_size_that_goes_the_same_way_everywhere_is_nothing_to_report(tmp_path: Path) -> None:
    class Sized(Perceptron):
        """Python decides on a size, always the same way."""

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x if x.shape[0] > 0 else -x)

    report = verify(torchscript_subject(Sized(), FEATURES, tmp_path))
    assert report.verdict is Verdict.passed, report.findings


class Clamped(Perceptron):
    """Clamps while it is exported."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, x: Tensor) -> Tensor:
        x = x.clamp(-self.limit, self.limit) if torch.onnx.is_in_onnx_export() else x
        return super().forward(x)


def test_an_export_only_branch_that_ordinary_inputs_do_not_reach_fails_parity(tmp_path: Path) -> None:
    assert_fails(verify(onnx_subject(Clamped(200), FEATURES, tmp_path)), Reason.parity)


def test_an_export_only_branch_that_makes_no_difference_is_noted(tmp_path: Path) -> None:
    report = verify(onnx_subject(Clamped(1e9), FEATURES, tmp_path))
    assert report.verdict is Verdict.pass_with_notes, report.findings
    assert "clamp × 1" in findings(report)[Reason.export_branch].detail


class Padded(nn.Module):
    """The stock encoder with a padding mask; ``first`` gives the first token alone, which is never padding."""

    def __init__(self, *, first: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder, self.first = nn.TransformerEncoder(layer, 1), first

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y: Tensor = self.encoder(x, src_key_padding_mask=mask == 0)
        return y[:, 0] if self.first else y


PADDED = Signature(
    inputs=(
        InputSpec(name="x", shape=("batch", 6, 16)),
        InputSpec(name="mask", dtype="int64", shape=("batch", 6), distribution=Mask()),
    )
)


CERTIFICATE = Certificate(
    conversion_id="cnv_1", certified_at="2026-11-27T00:00:00+00:00", verdict=Verdict.passed, probes=5, worst_ratio=0.1
)


@pytest.mark.parametrize("first", [False, True])
def test_other_values_of_fused_attention_are_noted(first: bool, tmp_path: Path) -> None:
    report = verify(torchscript_subject(Padded(first=first).eval(), PADDED, tmp_path))
    assert (Reason.fused_attention in findings(report)) is not first, report.findings
    assert report.verdict in (Verdict.passed, Verdict.pass_with_notes), report.findings


@pytest.mark.parametrize("verdict", [Verdict.passed, Verdict.pass_with_notes])
def test_a_repeat_asks_for_fused_attention_unless_its_graph_is_certified_without(
    verdict: Verdict, tmp_path: Path
) -> None:
    subject = torchscript_subject(Padded(first=False).eval(), PADDED, tmp_path)
    certificate = CERTIFICATE.model_copy(update={"verdict": verdict})
    report = verify(replace(subject, certificate=certificate), "certified")
    assert (Reason.fused_attention in findings(report)) is (verdict is not Verdict.passed), report.findings


def test_a_clients_padding_is_asked_for_though_the_certified_draws_held_none(tmp_path: Path) -> None:
    class Silent(Padded):
        """Takes a step of zeros for padding, which no random draw holds."""

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x, (x != 0).any(2).long())

    frames = np.ones((2, 6, 16), np.float32)
    frames[1, 3:] = 0
    np.savez(tmp_path / "probes.npz", x=frames)
    signature = Signature(inputs=PADDED.inputs[:1])
    subject = torchscript_subject(
        Silent(first=False).eval(), signature, tmp_path, client_probes=tmp_path / "probes.npz"
    )
    report = verify(replace(subject, certificate=CERTIFICATE), "certified")
    assert Reason.fused_attention in findings(report), report.findings


def test_probes_that_see_little_of_the_weights_are_noted(tmp_path: Path) -> None:
    class Drowned(Perceptron):
        """Most of its layers are a millionth of a millionth of the output."""

        def __init__(self) -> None:
            super().__init__()
            self.sides = nn.ModuleList(nn.Linear(6, 4, bias=False) for _ in range(20))
            self.eval()

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 1e-12 * torch.stack([side(x) for side in self.sides]).sum(0)

    report = verify(onnx_subject(Drowned(), FEATURES, tmp_path))
    assert report.verdict is Verdict.pass_with_notes, report.findings
    assert "sides." in findings(report)[Reason.blind_layers].detail


def test_when_float64_is_out_of_reach_the_report_says_so(tmp_path: Path) -> None:
    class Bound(Perceptron):
        """Leaves torch for numpy and back, which no float64 run can follow."""

        def forward(self, x: Tensor) -> Tensor:
            if not torch.jit.is_tracing() and not torch.compiler.is_exporting():
                x = torch.from_numpy(x.numpy().astype("float32"))
            return super().forward(x)

    report = verify(torchscript_subject(Bound(), FEATURES, tmp_path))
    assert report.oracle == "fp32-reordered"
    assert report.verdict is Verdict.pass_with_notes, report.findings
    assert Reason.oracle_unavailable in findings(report)
