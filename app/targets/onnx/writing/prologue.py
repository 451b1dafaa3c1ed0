"""The weight prologue: nodes that only rearrange weights leave the graph and become recipes of slots.

Exporters transpose the weight of a linear layer at run time, slice fused projections, reorder the gates of an LSTM.
Left in the graph, a runtime repeats this at every session creation, on every machine; done here, once per artifact.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

import onnx_ir as ir
import torch
from onnx_ir.passes import common
from torch import Tensor

from app.targets.onnx.writing.rearrangements import rearrangement
from app.targets.templating.pieces import Slot
from app.targets.templating.recipe import Constant, Operation, Recipe, Weight, constants_of, evaluate, weights_of
from app.targets.templating.slots import TensorForm
from app.targets.templating.tensor_bytes import TORCH_DTYPES, dtype_of, to_torch

SLACK = 1 << 18
"""Bytes by which a group of weights may grow, for small tables that are gathered into larger ones."""


@dataclass(frozen=True)
class Prologue:
    """Slots for every value that the graph reads, and the constants that their recipes mention."""

    slots: tuple[Slot, ...]
    constants: Mapping[str, Tensor]


def fold_prologue(model: ir.Model, weights: Mapping[str, ir.Value]) -> Prologue:
    """Take the prologue out of the graph. ``weights`` are its values without a producer, by state-dict key.

    A large weight that would then be stored twice, because the graph reads it in two forms, keeps its nodes instead:
    an artifact never carries a weight more than once.
    """
    search = _Search(weights)
    for node in model.graph:
        search.follow(node)
    search.forget_doubled()
    slots = _replace(model, search)
    common.RemoveUnusedNodesPass()(model)
    constants = {name: search.constants[name] for slot in slots for name in constants_of(slot.recipe)}
    return Prologue(tuple(slots), constants)


def no_prologue(weights: Mapping[str, ir.Value]) -> Prologue:
    """Slots for the weights that the graph reads, as they were uploaded; what rearranges them stays in the graph."""
    read = {key: value for key, value in weights.items() if value.uses() or value.is_graph_output()}
    forms = {key: form for key, value in read.items() if (form := _inferred(value)) is not None}
    return Prologue(tuple(Slot(key, form, Weight(key)) for key, form in forms.items()), {})


class _Search:
    """Values known to follow from weights alone, in the order of the graph."""

    def __init__(self, weights: Mapping[str, ir.Value]) -> None:
        self.recipes: dict[ir.Value, Recipe] = {value: Weight(key) for key, value in weights.items()}
        self.forms = {value: form for value in weights.values() if (form := _inferred(value)) is not None}
        self.constants: dict[str, Tensor] = {}
        self._meta = {key: _without_data(self.forms[value]) for key, value in weights.items()}
        self._meta_constants: dict[str, Tensor] = {}

    def operand(self, value: ir.Value) -> Recipe | None:
        if value in self.recipes:
            return self.recipes[value]
        tensor = value.const_value if value.is_initializer() else None
        if tensor is None or TORCH_DTYPES.get(tensor.dtype) is None:
            return None
        assert value.name is not None
        if value.name not in self.constants:
            self.constants[value.name] = to_torch(tensor)
            self._meta_constants[value.name] = self.constants[value.name].to("meta")
        return Constant(value.name)

    def follow(self, node: ir.Node) -> None:
        """Give the node's outputs recipes, if it only rearranges weights and none of them is a graph output."""
        if not any(value in self.recipes for value in node.inputs if value is not None):
            return
        if any(output.is_graph_output() for output in node.outputs):
            return
        recipes = rearrangement(node, self.operand)
        if recipes is None:
            return
        try:
            forms = [self._form(recipe) for recipe in recipes]
        except (RuntimeError, IndexError):  # torch refuses what this node does; a runtime will say what it thinks of it
            return
        if forms == [_inferred(output) for output in node.outputs]:
            self.recipes.update(zip(node.outputs, recipes, strict=True))
            self.forms.update(zip(node.outputs, forms, strict=True))

    def _form(self, recipe: Recipe) -> TensorForm:
        return TensorForm.of(evaluate(recipe, self._meta, self._meta_constants))

    def read(self) -> list[ir.Value]:
        """The known values that the rest of the graph reads."""
        return [
            value
            for value in self.recipes
            if value.is_graph_output() or any(not self._known(use.node) for use in value.uses())
        ]

    def _known(self, node: ir.Node) -> bool:
        return all(output in self.recipes for output in node.outputs)

    def forget_doubled(self) -> None:
        """Drop every recipe over a group of weights whose slots would need more bytes than the weights themselves."""
        read = {value: set(weights_of(self.recipes[value])) for value in self.read()}
        for group in _connected(read.values()):
            stored = sum(_bytes(self.forms[value]) for value, weights in read.items() if group & weights)
            own = sum(self._meta[key].nbytes for key in group)
            if stored > own + SLACK:
                for value, recipe in list(self.recipes.items()):
                    if not isinstance(recipe, Weight) and group & set(weights_of(recipe)):
                        del self.recipes[value]


def _connected(sets: Iterable[set[str]]) -> list[set[str]]:
    """Unions of the sets that share a member, directly or through others."""
    groups: list[set[str]] = []
    for members in sets:
        touching = [group for group in groups if group & members]
        groups = [group for group in groups if not group & members]
        groups.append(members.union(*touching))
    return groups


def _without_data(form: TensorForm) -> Tensor:
    return torch.empty(form.shape, dtype=dtype_of(form.dtype), device="meta")


def _inferred(value: ir.Value) -> TensorForm | None:
    if value.shape is None or value.dtype is None or not value.shape.is_static() or value.dtype not in TORCH_DTYPES:
        return None
    return TensorForm(TORCH_DTYPES[value.dtype], value.shape.numpy())


def _bytes(form: TensorForm) -> int:
    return prod(form.shape) * dtype_of(form.dtype).itemsize


def _replace(model: ir.Model, search: _Search) -> list[Slot]:
    """Give every value that is still read a name of its own and no producer. Slots come in the graph's order."""
    taken = {value.name for value in _all_values(model.graph)}
    slots = []
    for value in search.read():
        recipe = search.recipes[value]
        if isinstance(recipe, Weight):
            slots.append(Slot(recipe.key, search.forms[value], recipe))
            continue
        name = _free_name(recipe, taken)
        taken.add(name)
        form = search.forms[value]
        stored = ir.Value(name=name, shape=ir.Shape(form.shape), type=value.type)
        ir.convenience.replace_all_uses_with(value, stored)
        slots.append(Slot(name, form, recipe))
    return slots


def _all_values(graph: ir.Graph) -> Iterable[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph.all_nodes():
        yield from (value for value in node.inputs if value is not None)
        yield from node.outputs


_NAMES = {"permute": "transposed", "reshape": "reshaped", "slice": "part", "cast": "cast"}


def _free_name(recipe: Recipe, taken: set[str | None]) -> str:
    """The first weight's key and what was done to it, such as "fc.weight_transposed"."""
    done = _NAMES.get(recipe.name, "arranged") if isinstance(recipe, Operation) else "constant"
    base = f"{next(weights_of(recipe))}_{done}"
    candidates = (base, *(f"{base}_{number}" for number in range(2, len(taken) + 3)))
    return next(name for name in candidates if name not in taken)
