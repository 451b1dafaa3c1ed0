"""Layers of a graph in 8 bits: weights rounded to 255 levels of each channel, activations to 256 of each tensor.

Weights are unsigned with the zero point 128: products of two unsigned bytes never saturate, while those with signed
weights do on x86 processors without VNNI (onnxruntime's documentation of quantization, "S8S8 and U8S8"), so that a
proof on one machine would not hold on another. A convolution or a matrix product is computed in integers, an embedding
is looked up in 8 bits.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from app.targets.onnx.writing.reworked import needs_opset, opened, reworked
from app.targets.onnx.writing.template import OnnxTemplate
from app.targets.templating.pieces import Slot
from app.targets.templating.recipe import Operation, Recipe, weights_of
from app.targets.templating.slots import TensorForm

LOWEST_OPSET = 13
"""The first whose quantisation of a tensor has an axis (onnx's changelog of QuantizeLinear)."""
ZERO = 128
SWITCH = "int8_switch_"
"""Begins the names of inputs that turn a layer's 8 bits on, in a graph that holds both ways."""
FLOAT, BYTE = ir.DataType.FLOAT, ir.DataType.UINT8


@dataclass(frozen=True)
class Ranges:
    """Scale and zero point of activations that were measured ahead, by the name of the value."""

    scale: float
    zero: int


@dataclass(frozen=True)
class Layer:
    """A node of the graph whose weight is read by it alone. ``axis`` counts the weight's channels.

    ``name`` is its weight's key in the state dict, ``reads`` the value that it computes on.
    """

    name: str
    operator: str
    output: str
    reads: str
    slot: Slot
    axis: int


def layers_of(template: OnnxTemplate) -> tuple[Layer, ...]:
    """The layers that can be computed in 8 bits, in the graph's order. Raises UnsupportedOpset."""
    needs_opset(template, LOWEST_OPSET, "int8")
    model, weights = opened(template)
    return tuple(_found(model.graph, weights, template.slots))


def in_int8(
    template: OnnxTemplate,
    layers: Collection[Layer],
    *,
    ranges: Mapping[str, Ranges] | None = None,
    switches: bool = False,
) -> OnnxTemplate:
    """The template with these layers in 8 bits.

    ``ranges``: those of activations, by name; None: each activation is measured where it is read, as the graph runs.
    ``switches``: every layer is computed both ways, and a boolean input named SWITCH and its number says which counts.
    """

    def change(graph: ir.Graph, weights: Mapping[str, ir.Value]) -> Sequence[Slot]:
        work = _Rewriting(graph, weights, {slot.name: slot for slot in template.slots}, ranges, switches)
        nodes = {str(node.outputs[0].name): node for node in graph if node.outputs}
        for number, layer in enumerate(layers):
            work.rewrite(layer, nodes[layer.output], number)
        return work.slots()

    return reworked(template, change)


def _found(graph: ir.Graph, weights: Mapping[str, ir.Value], slots: Sequence[Slot]) -> Iterator[Layer]:
    by_value = {weights[slot.name]: slot for slot in slots if slot.form.dtype == "float32"}
    for node in graph:
        place = _PLACES.get(node.op_type) if node.domain == "" else None
        weight = node.inputs[place] if place is not None and place < len(node.inputs) else None
        slot = by_value.get(weight) if weight is not None else None
        if slot is None or weight is None or place is None or len(weight.uses()) != 1 or weight.is_graph_output():
            continue
        axis, read = _channels(node, slot), node.inputs[1 - place]
        if axis is None or read is None or not _bias_is_known(node, weights) or not _computed(read, node, weights):
            continue
        name = next(weights_of(slot.recipe))
        yield Layer(name, node.op_type, str(node.outputs[0].name), str(read.name), slot, axis)


_PLACES = {"MatMul": 1, "Gemm": 1, "Conv": 1, "Gather": 0}
"""Where these operators read their weight."""


def _channels(node: ir.Node, slot: Slot) -> int | None:
    """The axis of the weight along which each channel has a scale of its own; None for a form that is not rewritten."""
    rank = len(slot.form.shape)
    match node.op_type:
        case "MatMul":
            return 1 if rank == 2 else None
        case "Gemm":
            plain = _number(node, "alpha", 1.0) == 1.0 == _number(node, "beta", 1.0) and not _number(node, "transA", 0)
            return (0 if _number(node, "transB", 0) else 1) if plain else None
        case "Gather":
            return 0 if rank == 2 and _number(node, "axis", 0) == 0 else None
    return 0


def _computed(read: ir.Value, node: ir.Node, weights: Mapping[str, ir.Value]) -> bool:
    """Whether the layer computes on an activation; of a table, rows are looked up by any indices."""
    if node.op_type == "Gather":
        return True
    return weights.get(str(read.name)) is not read and (read.producer() is not None or read.is_graph_input())


def _bias_is_known(node: ir.Node, weights: Mapping[str, ir.Value]) -> bool:
    """Whether the bias, if there is one, is a weight as well."""
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    return bias is None or weights.get(str(bias.name)) is bias


def _number(node: ir.Node, name: str, default: float) -> float:
    attribute = node.attributes.get(name)
    return default if attribute is None else float(attribute.value)


@dataclass
class _Rewriting:
    graph: ir.Graph
    weights: Mapping[str, ir.Value]
    known: Mapping[str, Slot]
    ranges: Mapping[str, Ranges] | None
    switches: bool
    made: list[Slot] = field(default_factory=list)
    activations: dict[ir.Value, tuple[ir.Value, ...]] = field(default_factory=dict)
    constants: dict[str, ir.Value] = field(default_factory=dict)
    taken: set[str | None] = field(default_factory=set)

    def __post_init__(self) -> None:
        values = [output for node in self.graph for output in node.outputs]
        self.taken |= {value.name for value in (*self.graph.inputs, *self.graph.initializers.values(), *values)}

    def _free(self, name: str) -> str:
        """That name, with underscores behind it where it is taken."""
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    def slots(self) -> list[Slot]:
        """Of what is still read, in the order of before, then of what came in."""
        read = [slot for slot in self.known.values() if self.weights[slot.name].uses()]
        return [*read, *self.made]

    def rewrite(self, layer: Layer, node: ir.Node, number: int) -> None:
        old = node.outputs[0]
        name, old.name = str(old.name), self._free(f"{old.name}_float")
        ways = {"Conv": self._conv, "Gather": self._gather}
        way = ways.get(layer.operator, self._product)
        result = (way if self.ranges is None or layer.operator == "Gather" else self._rounded)(layer, node)
        if self.switches:
            switch = ir.Value(name=f"{SWITCH}{number}", type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([]))
            self.graph.inputs.append(switch)
            chosen = ir.node("Where", [switch, result, old])
            self.graph.insert_after(node, chosen)
            new = chosen.outputs[0]
        else:
            new = result
        new.name, new.type, new.shape = name, old.type, old.shape
        for user, position in list(old.uses()):
            if not (self.switches and user is new.producer()):
                user.replace_input_with(position, new)
        for position, value in enumerate(self.graph.outputs):
            if value is old:
                self.graph.outputs[position] = new
        if not self.switches:
            self.graph.remove(node, safe=True)

    def _rounded(self, layer: Layer, node: ir.Node) -> ir.Value:
        """The node itself, on values that went through 8 bits: runtimes have an integer kernel for all three."""
        channels = layer.slot.form.shape[layer.axis]
        levels, scale = self._weight(layer, layer.slot.recipe, layer.slot.form.shape, layer.axis, (channels,))
        zeros = self._constant(f"int8_zero_{channels}", np.full(channels, ZERO, np.uint8))
        weight = self._add("DequantizeLinear", [levels, scale, zeros], node, {"axis": layer.axis})
        read = self._add("DequantizeLinear", self._activation(node.inputs[0], node), node)
        return self._add(node.op_type, [read, weight, *node.inputs[2:]], node, dict(node.attributes))

    def _product(self, layer: Layer, node: ir.Node) -> ir.Value:
        """x @ W + b, from integers."""
        recipe, shape, axis = layer.slot.recipe, layer.slot.form.shape, layer.axis
        if axis == 0:  # the integer product knows no transposed operand
            recipe, shape, axis = Operation("permute", (recipe,), {"perm": [1, 0]}), shape[::-1], 1
        levels, scale = self._weight(layer, recipe, shape, axis, (shape[1],))
        quantised, activation_scale, zero = self._activation(node.inputs[0], node)
        product = self._add("MatMulInteger", [quantised, levels, zero, self._zero()], node)
        return self._biased(self._scaled(product, activation_scale, scale, node), layer, node, None)

    def _conv(self, layer: Layer, node: ir.Node) -> ir.Value:
        shape = layer.slot.form.shape
        broadcast = (shape[0], *(1 for _ in shape[2:]))
        levels, scale = self._weight(layer, layer.slot.recipe, shape, 0, broadcast)
        quantised, activation_scale, zero = self._activation(node.inputs[0], node)
        product = self._add("ConvInteger", [quantised, levels, zero, self._zero()], node, dict(node.attributes))
        return self._biased(self._scaled(product, activation_scale, scale, node), layer, node, broadcast)

    def _gather(self, layer: Layer, node: ir.Node) -> ir.Value:
        """Rows of a table, each with a scale of its own."""
        shape = layer.slot.form.shape
        levels, scale = self._weight(layer, layer.slot.recipe, shape, 0, (shape[0], 1))
        rows = self._add("Gather", [levels, node.inputs[1]], node)
        steps = self._add(
            "Sub", [self._cast(rows, node), self._constant("int8_zero_float", np.array(ZERO, np.float32))], node
        )
        return self._add("Mul", [steps, self._add("Gather", [scale, node.inputs[1]], node)], node)

    def _weight(
        self, layer: Layer, recipe: Recipe, shape: tuple[int, ...], axis: int, broadcast: tuple[int, ...]
    ) -> tuple[ir.Value, ir.Value]:
        """Levels and scales of a weight, as new slots."""
        name = layer.slot.name
        levels = Slot(
            self._free(f"{name}_quantized"), TensorForm("uint8", shape), Operation("int8", (recipe,), {"axis": axis})
        )
        scaling = {"axis": axis, "shape": list(broadcast)}
        scale = Slot(
            self._free(f"{name}_scale"), TensorForm("float32", broadcast), Operation("int8_scale", (recipe,), scaling)
        )
        self.made += [levels, scale]
        return _value(levels, BYTE), _value(scale, FLOAT)

    def _activation(self, value: ir.Value | None, before: ir.Node) -> tuple[ir.Value, ...]:
        """A value in 8 bits, with its scale and zero point; once for all layers that read it."""
        assert value is not None
        if value not in self.activations:
            if self.ranges is None:
                node = ir.node("DynamicQuantizeLinear", [value], num_outputs=3)
                self.graph.insert_before(before, node)
                for output, called in zip(node.outputs, ("quantized", "scale", "zero"), strict=True):
                    output.name = self._free(f"{value.name}_{called}")
                self.activations[value] = tuple(node.outputs)
            else:
                known = self.ranges[str(value.name)]
                scale = self._constant(f"{value.name}_scale", np.array(known.scale, np.float32))
                zero = self._constant(f"{value.name}_zero", np.array(known.zero, np.uint8))
                self.activations[value] = (self._add("QuantizeLinear", [value, scale, zero], before), scale, zero)
        return self.activations[value]

    def _scaled(self, product: ir.Value, activation: ir.Value, weight: ir.Value, before: ir.Node) -> ir.Value:
        both = self._add("Mul", [activation, weight], before)
        return self._add("Mul", [self._cast(product, before), both], before)

    def _biased(self, value: ir.Value, layer: Layer, node: ir.Node, broadcast: tuple[int, ...] | None) -> ir.Value:
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if bias is None:
            return value
        if broadcast is not None:
            slot = self.known[str(bias.name)]
            recipe = Operation("reshape", (slot.recipe,), {"shape": list(broadcast)})
            reshaped = Slot(self._free(f"{layer.slot.name}_bias"), TensorForm("float32", broadcast), recipe)
            self.made.append(reshaped)
            bias = _value(reshaped, FLOAT)
        return self._add("Add", [value, bias], node)

    def _cast(self, value: ir.Value, before: ir.Node) -> ir.Value:
        return self._add("Cast", [value], before, {"to": int(FLOAT)})

    def _add(
        self,
        kind: str,
        inputs: Sequence[ir.Value | None],
        before: ir.Node,
        attributes: Mapping[str, int | ir.Attr] | None = None,
    ) -> ir.Value:
        node = ir.node(kind, inputs, attributes)
        self.graph.insert_before(before, node)
        output = node.outputs[0]
        output.name = self._free(f"{before.outputs[0].name}_{kind.lower()}")
        return output

    def _zero(self) -> ir.Value:
        return self._constant("int8_zero", np.array(ZERO, np.uint8))

    def _constant(self, name: str, array: NDArray[np.generic]) -> ir.Value:
        if name not in self.constants:
            free = self._free(name)
            tensor = ir.tensor(array, name=free)
            dims = ir.Shape(array.shape)
            value = ir.Value(name=free, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=dims)
            self.graph.initializers[free] = value
            self.constants[name] = value
        return self.constants[name]


def _value(slot: Slot, dtype: ir.DataType) -> ir.Value:
    return ir.Value(name=slot.name, type=ir.TensorType(dtype), shape=ir.Shape(slot.form.shape))
