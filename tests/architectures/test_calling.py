"""Binding inputs, flattening outputs and naming them."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from recast_plugins import InputSpec, OutputSpec, Signature
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from app.architectures.calling import EagerModel, bind, call, flatten
from app.architectures.registry import Registry
from app.architectures.sample import sample_inputs
from app.domain.errors import ExportFailed, InvalidRequest

ONE, TWO, THREE = (torch.full((1,), float(value)) for value in (1, 2, 3))
FREE = Signature(inputs=(InputSpec(name="x", shape=("batch", 1)),))
Pair = namedtuple("Pair", ["left", "right"])


@dataclass
class Scores:
    logits: Tensor
    hidden: Tensor | None
    states: tuple[Tensor, ...]


@pytest.mark.parametrize(
    ("result", "names"),
    [
        (ONE, ["output"]),
        ((ONE, TWO), ["output_0", "output_1"]),
        ([ONE, (TWO, THREE)], ["output_0", "output_1_0", "output_1_1"]),
        ({"b": ONE, "a": TWO}, ["b", "a"]),
        (OrderedDict(logits=ONE, states=(TWO, THREE)), ["logits", "states_0", "states_1"]),
        (Pair(ONE, TWO), ["left", "right"]),
        (Scores(ONE, None, (TWO, THREE)), ["logits", "states_0", "states_1"]),
        ((ONE, None, {"x": TWO}), ["output_0", "output_2_x"]),
        ({"x": ONE, "y": TWO}, ["x_out", "y"]),
        ({"a_b": ONE, "a": {"b": TWO}}, ["a_b", "a_b_out"]),
    ],
)
def test_outputs_are_named_by_the_way_that_leads_to_them(result: Any, names: list[str]) -> None:
    assert list(flatten(result, FREE)) == names


@pytest.mark.parametrize(
    "result",
    [
        {"b": ONE, "a": [TWO, {"z": THREE, "c": ONE}]},
        (ONE, {"b": TWO, "a": THREE}),
        Pair({"q": ONE}, [TWO, THREE]),
        OrderedDict(b=ONE, a=OrderedDict(z=TWO, y=THREE)),
    ],
)
def test_outputs_come_in_the_order_in_which_exporters_flatten_them(result: Any) -> None:
    leaves, _ = pytree.tree_flatten(result)
    assert [id(tensor) for tensor in flatten(result, FREE).values()] == [id(leaf) for leaf in leaves]


def test_declared_outputs_give_the_names() -> None:
    signature = FREE.model_copy(update={"outputs": (OutputSpec(name="scores"), OutputSpec(name="boxes"))})
    assert list(flatten({"a": ONE, "b": TWO}, signature)) == ["scores", "boxes"]
    with pytest.raises(ExportFailed, match=r"1 tensors.*declares 2"):
        flatten(ONE, signature)


@pytest.mark.parametrize("result", [3, "text", {"a": ONE, "length": 3}, object()])
def test_a_result_that_is_no_tensor_is_refused_in_words(result: Any) -> None:
    with pytest.raises(ExportFailed, match="only tensors"):
        flatten(result, FREE)


def test_inputs_go_by_keyword_where_forward_has_their_names_and_by_position_elsewhere() -> None:
    class Difference(nn.Module):
        def forward(self, b: Tensor, a: Tensor) -> Tensor:
            return a - b

    by_name = Signature(inputs=(InputSpec(name="a", shape=(1,)), InputSpec(name="b", shape=(1,))))
    by_place = Signature(inputs=(InputSpec(name="first", shape=(1,)), InputSpec(name="second", shape=(1,))))
    for module in (Difference(), torch.jit.script(Difference())):
        assert bind(EagerModel(module, by_name), {"a": ONE, "b": TWO}) == ((), {"a": ONE, "b": TWO})
        assert bind(EagerModel(module, by_place), {"first": ONE, "second": TWO}) == ((ONE, TWO), {})
        assert call(EagerModel(module, by_name), {"a": ONE, "b": TWO})["output"].item() == -1.0
        assert call(EagerModel(module, by_place), {"first": ONE, "second": TWO})["output"].item() == 1.0


def test_a_missing_input_is_named() -> None:
    with pytest.raises(InvalidRequest, match="input x"):
        bind(EagerModel(nn.Identity(), FREE), {})


def test_a_module_that_writes_into_its_input_does_not_change_the_callers() -> None:
    class Writing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mul_(2)

    x = torch.ones(2, 1)
    assert call(EagerModel(Writing(), FREE), {"x": x})["output"].tolist() == [[2.0], [2.0]]
    assert x.tolist() == [[1.0], [1.0]]


RUNS: list[tuple[str, dict[str, object]]] = [
    ("torchvision/resnet18", {"image_size": 32, "num_classes": 5}),
    ("torchvision/lraspp_mobilenet_v3_large", {"image_size": 64}),
    ("torchvision/fcn_resnet50", {"image_size": 32, "aux_loss": True}),
    ("torchvision/ssdlite320_mobilenet_v3_large", {"image_size": 64}),
    ("torchvision/retinanet_resnet50_fpn", {"image_size": 64, "min_size": 64, "max_size": 64, "num_classes": 3}),
    ("torchvision/keypointrcnn_resnet50_fpn", {"image_size": 64, "min_size": 64, "max_size": 64}),
    ("torchvision/raft_small", {}),
    ("torchvision/r3d_18", {"image_size": 32, "frames": 4}),
    ("timm/resnet18", {"image_size": 32, "in_chans": 1}),
    ("timm/vit_tiny_patch16_224", {"image_size": 32, "num_classes": 0}),
    ("sample/matching", {}),
    ("sample/tagger", {}),
    ("sample/branching", {}),
    ("sample/conditional", {}),
]


@pytest.mark.parametrize(("name", "options"), RUNS, ids=[name for name, _ in RUNS])
def test_architectures_give_what_their_signature_declares(
    registry: Registry, generator: torch.Generator, name: str, options: dict[str, object]
) -> None:
    signature = registry.resolve(name, options).signature
    module = registry.build(name, options, initialised=True)
    sizes = {axis.name: axis.sample + axis.multiple_of for axis in signature.axes}
    outputs = call(EagerModel(module, signature), sample_inputs(signature, sizes, generator))

    if signature.outputs:
        assert list(outputs) == [spec.name for spec in signature.outputs]
    for spec in signature.outputs:
        if spec.dtype is not None:
            assert outputs[spec.name].dtype == getattr(torch, spec.dtype)
        if spec.shape is not None:
            assert outputs[spec.name].shape == tuple(sizes.get(size, size) for size in spec.shape)
