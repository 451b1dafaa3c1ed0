"""Architectures whose weights steer the graph are told apart from those whose weights do not."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from app.domain.architecture import InputSpec
from app.domain.errors import ExportFailed, TemplateMismatch
from app.targets.onnx.writing import build as onnx_build
from app.targets.onnx.writing import dynamo_exporter as onnx_dynamo
from app.targets.onnx.writing.fill import write_onnx
from app.targets.templating.reuse import against_reuse, steering
from app.targets.templating.structure import structure_digest
from app.targets.torchscript.spec import TorchScriptOptions
from app.targets.torchscript.writing import template as torchscript_template
from tests.targets.capturing import (
    Attention,
    ConvNet,
    Recurrent,
    Tied,
    capture_onnx,
    capture_torchscript,
    request_for,
    train_a_little,
)

X = InputSpec(name="x", shape=("batch", 4))


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x)


class Branches(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) if self.fc.bias.sum() > 0 else self.fc(-x)


class TakesNumber(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) * self.fc.weight.abs().max().item()


class LeavesTorch(Plain):
    def forward(self, x: Tensor) -> Tensor:
        order = np.argsort(self.fc.bias.detach().numpy())
        return self.fc(x)[:, torch.from_numpy(order.copy())]


class CountsSelected(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x)[:, : int((self.fc.bias > 0).sum())]


class Compares(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) if torch.equal(self.fc.bias, torch.zeros(4)) else x


class BranchesOnInput(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) if x.sum() > 0 else x


STEERED = [Branches, TakesNumber, LeavesTorch, CountsSelected, Compares, BranchesOnInput]


@pytest.mark.parametrize("kind", STEERED)
def test_a_forward_pass_that_reads_values_serves_no_other_weights(kind: type[nn.Module], tmp_path: Path) -> None:
    request, captured = capture_torchscript(kind(), spec=X)
    template = torchscript_template.build_template(captured, request, tmp_path / "template")
    assert "needs values" in str(template.against_reuse)


@pytest.mark.parametrize("kind", STEERED)
def test_it_is_filled_all_the_same(kind: type[nn.Module], tmp_path: Path) -> None:
    request, captured = capture_torchscript(train_a_little(kind(), 1), spec=X)
    template = torchscript_template.build_template(captured, request, tmp_path / "template")
    template.fill(request.module.state_dict(), tmp_path / "model.pt")
    x = request.sample["x"]
    assert torch.equal(torch.jit.load(tmp_path / "model.pt")(x), request.module(x))


@pytest.mark.parametrize("kind", [Branches, LeavesTorch, Compares])
def test_torch_export_refuses_weights_that_steer(kind: type[nn.Module]) -> None:
    with pytest.raises(ExportFailed):
        onnx_dynamo.capture(request_for(kind(), X))


def test_a_number_taken_from_a_weight_stays_a_computation_in_the_graph(tmp_path: Path) -> None:
    net = capture_onnx(train_a_little(TakesNumber(), 1), X)
    template = onnx_build.build_template(net.captured, net.module, tmp_path / "template")
    assert {slot.name for slot in template.slots} >= {"fc.weight", "fc.bias"}


@pytest.mark.parametrize("kind", [ConvNet, Attention, Recurrent, Tied])
def test_a_forward_pass_that_reads_no_values_may_serve_others_and_is_left_as_it_was(kind: type[nn.Module]) -> None:
    module = train_a_little(kind(), 1)
    before = structure_digest(module)
    request = request_for(module)
    assert steering(request) is None
    assert structure_digest(module) == before
    inputs = next(iter(request.sample.values()))
    assert torch.equal(module(inputs), train_a_little(kind(), 1)(inputs))


def test_a_traced_onnx_graph_needs_the_request_to_be_judged(tmp_path: Path) -> None:
    net = capture_onnx(train_a_little(ConvNet(), 1), exporter="torchscript")
    template = onnx_build.build_template(net.captured, net.module, tmp_path / "template")
    assert "nothing is known" in str(template.against_reuse)


class Clamps(Plain):
    def forward(self, x: Tensor) -> Tensor:
        self.fc.weight.detach().view(-1).clamp_(-0.1, 0.1)
        return self.fc(x)


class Counts(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        self.scale = self.scale * 0.5
        return self.fc(x) * self.scale


class ClampsRarely(Plain):
    """In a branch that no sample takes."""

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 1e6:
            self.fc.weight[0].clamp_(-0.1, 0.1)
        return self.fc(x)


@pytest.mark.parametrize("kind", [Clamps, Counts])
@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_an_onnx_graph_that_rewrites_weights_serves_no_others(
    kind: type[nn.Module], exporter: str, tmp_path: Path
) -> None:
    net = capture_onnx(kind().requires_grad_(False), X, exporter=exporter)
    request = request_for(net.module, X)
    template = onnx_build.build_template(net.captured, net.module, tmp_path / "template", request=request)
    assert re.search(r"writes into its own tensors: (fc.weight|scale)", str(template.against_reuse))


@pytest.mark.parametrize(
    ("kind", "method"), [(Clamps, "trace"), (Counts, "trace"), (Clamps, "script"), (ClampsRarely, "script")]
)
def test_a_program_that_rewrites_weights_serves_no_others(kind: type[nn.Module], method: str, tmp_path: Path) -> None:
    request, captured = capture_torchscript(kind().requires_grad_(False), method, spec=X)
    template = torchscript_template.build_template(captured, request, tmp_path / "template")
    assert re.search(r"writes into its own tensors: (fc.weight|scale|weight)", str(template.against_reuse))


@pytest.mark.parametrize("freeze", [False, True])
def test_a_program_that_branches_on_its_inputs_may_serve_others_when_compiled(freeze: bool, tmp_path: Path) -> None:
    options = TorchScriptOptions(check_trace=False, freeze=freeze)
    request, captured = capture_torchscript(BranchesOnInput(), "script", options, spec=X)
    assert torchscript_template.build_template(captured, request, tmp_path / "template").against_reuse is None


class Remembers(Plain):
    """Extra state that is no tensor."""

    def get_extra_state(self) -> dict[str, int]:
        return {"version": 2}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.version = state["version"]


def test_state_that_is_no_tensor_serves_no_others() -> None:
    reason = against_reuse(request_for(Remembers(), X))
    assert reason is not None
    assert "_extra_state" in reason


class Scales(Plain):
    """Sets a Python number from the loaded weights; every graph captured after that holds the number."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 1.0
        self.register_load_state_dict_post_hook(Scales.measure)

    def measure(self, _: object) -> None:
        self.scale = float(self.fc.weight.abs().max())

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) * self.scale


class Rebuilds(Plain):
    """Changes its layers while loading, as torchvision's MNASNet does for old checkpoints."""

    def _load_from_state_dict(self, state_dict, prefix, *rest) -> None:
        self.act = nn.ReLU() if state_dict[prefix + "fc.bias"].sum() > 0 else nn.Sigmoid()
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.fc(x))


@pytest.mark.parametrize("kind", [Scales, Rebuilds])
def test_a_module_that_loading_changed_does_not_fit(kind: type[nn.Module], tmp_path: Path) -> None:
    state = Plain().state_dict()
    state["fc.bias"] = torch.ones(4)
    module = kind()
    module.load_state_dict(state)
    net = capture_onnx(module, X)
    template = onnx_build.build_template(net.captured, module, tmp_path / "template")
    write_onnx(template, module.state_dict(), tmp_path / "model.onnx", module=module)

    other = kind()
    other.load_state_dict({key: -2 * tensor for key, tensor in state.items()})
    with pytest.raises(TemplateMismatch, match="beyond its tensors"):
        write_onnx(template, other.state_dict(), tmp_path / "other.onnx", module=other)


class Hides(Plain):
    """Keeps a rearranged copy of its weight where no state dict sees it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 5)
        self.register_load_state_dict_post_hook(Hides.copy)

    def copy(self, _: object) -> None:
        self.turned = self.fc.weight.detach().t().clone()

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.turned + self.fc.bias


def test_a_weight_among_the_constants_is_found(tmp_path: Path) -> None:
    module = Hides()
    module.load_state_dict(train_a_little(Hides(), 1).state_dict())
    said = r"constant .* of the weight fc\.weight"
    net = capture_onnx(module, X)
    with pytest.raises(ExportFailed, match=said):
        onnx_build.build_template(net.captured, module, tmp_path / "template")
    request, captured = capture_torchscript(module, spec=X)
    with pytest.raises(ExportFailed, match=said):
        torchscript_template.build_template(captured, request, tmp_path / "template")
