"""Nodes that only rearrange weights leave the graph, unless a weight would then be stored twice."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from app.domain.architecture import InputSpec
from app.domain.errors import TemplateMismatch
from app.targets.onnx.writing.build import build_template
from app.targets.onnx.writing.fill import write_onnx
from app.targets.onnx.writing.template import OnnxTemplate
from app.targets.templating.recipe import Weight
from tests.targets.capturing import (
    SPECS,
    Attention,
    ConvNet,
    Recurrent,
    Tied,
    capture_onnx,
    train_a_little,
)
from tests.targets.conftest import TemplateOf


def nodes_over_weights_alone(template: OnnxTemplate) -> list[str]:
    graph = onnx.ModelProto.FromString(template.graph_without_weights()).graph
    stored = {tensor.name for tensor in graph.initializer} | {slot.name for slot in template.slots}
    return [node.op_type for node in graph.node if node.input and set(filter(None, node.input)) <= stored]


@pytest.mark.parametrize("kind", [ConvNet, Attention, Recurrent])
def test_no_node_is_left_that_depends_on_weights_alone(kind: type[nn.Module], template_of: TemplateOf) -> None:
    assert nodes_over_weights_alone(template_of(kind)) == []


def test_prologue_results_are_named_after_their_weight(template_of: TemplateOf) -> None:
    names = [slot.name for slot in template_of(Attention).slots if not isinstance(slot.recipe, Weight)]
    assert "out.weight_transposed" in names
    assert any(name.startswith("table_") for name in names)


def test_a_tied_weight_that_is_read_in_two_forms_keeps_its_transpose(template_of: TemplateOf) -> None:
    assert nodes_over_weights_alone(template_of(Tied)) == ["Transpose"]
    slots = [slot for slot in template_of(Tied).slots if slot.form.shape in ((2048, 64), (64, 2048))]
    assert [slot.name for slot in slots] in (["embedding.weight"], ["head.weight"])


class TiedTwice(nn.Module):
    """Two embeddings, each of them the head of its own branch as well."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Tied(), Tied()

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) + self.second(x)


def test_each_of_several_doubled_weights_keeps_its_own_nodes(tmp_path: Path) -> None:
    net = capture_onnx(train_a_little(TiedTwice(), 1), SPECS[Tied])
    template = build_template(net.captured, net.module, tmp_path / "template")
    assert nodes_over_weights_alone(template) == ["Transpose", "Transpose"]


def test_indices_beyond_a_table_are_a_mismatch(template_of: TemplateOf, tmp_path: Path) -> None:
    state = train_a_little(Attention(), 2).state_dict()
    state["index"] = state["index"] + 1
    with pytest.raises(TemplateMismatch, match="table"):
        write_onnx(template_of(Attention), state, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


class Rearranged(nn.Module):
    """Every rearrangement at once."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(6, 4, 2))
        self.other = nn.Parameter(torch.empty(3, 8))

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.weight.permute(2, 0, 1).reshape(12, 4).split([3, 9])
        picked = self.other.index_select(1, torch.tensor([5, 1, 0, 7]))
        joined = torch.cat([first, second[1:8:2], picked.flip(0)]).unsqueeze(0).expand(2, -1, -1)
        return (x[:, None] * joined.double().float()[1].unsqueeze(0).squeeze(0)).flatten(1)


def test_rearrangements_are_carried_out_exactly(tmp_path: Path) -> None:
    net = capture_onnx(train_a_little(Rearranged(), 1), InputSpec(name="x", shape=("batch", 10, 4)))
    template = build_template(net.captured, net.module, tmp_path / "template")
    module = train_a_little(net.module, 2)
    write_onnx(template, module.state_dict(), tmp_path / "model.onnx")
    inputs = torch.randn(3, 10, 4)
    with torch.inference_mode():
        expected = module(inputs).numpy()
    (actual,) = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {"x": inputs.numpy()})
    assert np.array_equal(actual, expected)
