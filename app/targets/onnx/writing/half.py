"""A graph in half precision: weights and values in float16, inputs and outputs as they were or in float16 too.

Operators that do arithmetic on positions or draw numbers stay in float32. So do those whose weights, or whose values on
the sample, float16 does not hold: near its largest number, or all below its least. And those that add a number which it
takes for zero. Each is named.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
import onnxruntime
from onnx_ir.passes.common import ShapeInferencePass
from torch import Tensor

from app.domain.errors import ExportFailed
from app.targets.capturing.quiet import first_lines
from app.targets.onnx.writing.transposes import is_multiplied_behind

HALF, SINGLE = ir.DataType.FLOAT16, ir.DataType.FLOAT
LARGEST = 65504.0
HEADROOM = 8.0
"""Times which other inputs than the sample may drive a value further before it overflows."""
SMALLEST = 2.0**-14
"""The least float16 with all its bits; smaller numbers lose theirs, or are zero."""
_IN_SINGLE = frozenset(
    {"Range", "CumSum", "Resize", "Upsample", "NonMaxSuppression", "TopK", "RoiAlign", "MaxRoiPool", "GridSample"}
    | {"DeformConv", "DFT", "STFT", "MelWeightMatrix", "EyeLike", "Bernoulli", "Multinomial", "RandomNormal"}
    | {"RandomNormalLike", "RandomUniform", "RandomUniformLike", "LSTM", "GRU", "RNN"}
)
"""Operators on positions and scales, of which float16 holds whole numbers to 2048 only; those that draw numbers; and
recurrent ones, which CPU runtimes have for float32 only."""
_SENSITIVE = frozenset({"Sqrt", "Div", "Reciprocal", "Log", "Pow"})
"""Operators that make much of a small number: behind one that stays in float32 they do so too."""
_MULTIPLYING = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum", "Mul", *_SENSITIVE})
"""Operators that make something of a number however small it is."""
_MOVING = frozenset(
    {"Concat", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Slice", "Split", "Squeeze", "Tile"}
    | {"Transpose", "Unsqueeze"}
)
"""Operators that compute nothing."""


@dataclass(frozen=True)
class Kept:
    """Why an operator stays in float32."""

    reason: str
    by_values: bool = False
    """Because of these weights or of what they make of the sample: with others it might not."""


_SMALL = Kept("a small number")


def to_half(
    model: ir.Model,
    weights: Mapping[str, ir.Value],
    sample: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    *,
    keep_io_types: bool = True,
) -> dict[str, Kept]:
    """Change the graph in place; ``weights`` are its values without a producer, by key, whose tensors are ``state``.
    Inputs and outputs of float32 stay so, or become float16.

    Gives the operators that stay in float32. Raises ExportFailed for graphs with branches or loops, and where the graph
    cannot be run on the sample.
    """
    graph = model.graph
    kinds = {attribute.type for node in graph for attribute in node.attributes.values()}
    if kinds & {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}:
        raise ExportFailed("precision fp16 takes no graph with branches or loops.", stage="export", hint="Use fp32.")
    _clamp_constants(graph)
    graph.inputs.extend(weights.values())
    try:
        ShapeInferencePass()(model)
        largest = _largest(model, {**sample, **{key: state[key] for key in weights}})
    finally:
        del graph.inputs[len(graph.inputs) - len(weights) :]
    sizes = {str(value.name): _magnitude(state[key]) for key, value in weights.items() if value.dtype == SINGLE}
    kept = _kept(graph, largest, sizes)
    _Lowering(graph, set(kept), keep_io_types).run()
    _drop_unused(graph)
    return {f"{node.op_type} {node.name or node.outputs[0].name}": why for node, why in kept.items()}


def _magnitude(tensor: Tensor) -> float:
    return float(tensor.abs().max()) if tensor.numel() else 0.0


def _floats(values: Iterable[ir.Value | None]) -> list[ir.Value]:
    return [value for value in values if value is not None and value.dtype == SINGLE]


def _clamp_constants(graph: ir.Graph) -> None:
    """Bring what models put in place of scores that shall not count (-1e9, finfo.min) to the range of float16."""
    for value in graph.initializers.values():
        tensor = value.const_value
        if tensor is None or tensor.dtype != SINGLE:
            continue
        value.type = ir.TensorType(SINGLE)
        array = tensor.numpy()
        if array.size and float(np.abs(array[np.isfinite(array)]).max(initial=0.0)) > LARGEST:
            clamped = np.where(np.isfinite(array), np.clip(array, -LARGEST, LARGEST), array)
            value.const_value = ir.tensor(clamped.astype(np.float32), name=value.name)


def _largest(model: ir.Model, feed: Mapping[str, Tensor]) -> dict[str, float]:
    """The largest magnitude of every float32 value on the sample; what a mask filled in does not count."""
    watched = model.clone()
    graph = watched.graph
    values = [value for node in graph for value in _floats(node.outputs)]
    floor = ir.Value(name="half_floor", const_value=ir.tensor(np.float32(-LARGEST / 2), name="half_floor"))
    nothing = ir.Value(name="half_nothing", const_value=ir.tensor(np.float32(0), name="half_nothing"))
    for constant in (floor, nothing):
        graph.initializers[str(constant.name)] = constant
    names = []
    for value in values:
        filled = ir.node("Less", [value, floor])
        kept = ir.node("Where", [filled.outputs[0], nothing, value])
        size = ir.node("Abs", [kept.outputs[0]])
        most = ir.node("ReduceMax", [size.outputs[0]], {"keepdims": 0})
        for position, node in enumerate((filled, kept, size, most)):
            node.outputs[0].name = f"half_{position}_{value.name}"
            graph.append(node)
        most.outputs[0].type, most.outputs[0].shape = ir.TensorType(SINGLE), ir.Shape([])
        graph.outputs.append(most.outputs[0])
        names.append((str(value.name), str(most.outputs[0].name)))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.enable_cpu_mem_arena = False
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        proto = ir.to_proto(watched).SerializeToString()
        session = onnxruntime.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
        given = {node.name: feed[node.name].detach().contiguous().numpy() for node in session.get_inputs()}
        found = session.run([name for _, name in names], given) if names else []
    except Exception as error:  # onnxruntime raises classes of its own
        raise ExportFailed(
            f"The graph cannot be measured for fp16: {first_lines(str(error))}", stage="export"
        ) from error
    return {name: float(largest) for (name, _), largest in zip(names, found, strict=True)}


def _kept(graph: ir.Graph, largest: Mapping[str, float], weights: Mapping[str, float]) -> dict[ir.Node, Kept]:
    """Nodes that stay in float32, in the graph's order. ``largest`` of values, and of weights, by name."""
    kept: dict[ir.Node, Kept] = {}
    for node in graph:
        if not _floats((*node.inputs, *node.outputs)):
            continue
        if node.op_type in _IN_SINGLE or node.domain != "":
            kept[node] = Kept("no float16")
        elif is_multiplied_behind(node):
            kept[node] = Kept("onnxruntime crashes on it in float16")
        elif (told := _too_large(node, largest, weights) or _too_small(node, largest, weights, kept)) is not None:
            kept[node] = Kept(told, by_values=True)
        elif any(_is_small(value, kept, node) for value in _floats(node.inputs)):
            kept[node] = _SMALL
    return kept


def _too_large(node: ir.Node, largest: Mapping[str, float], weights: Mapping[str, float]) -> str | None:
    """In words, a number that float16 does not hold, or that comes near to what it does not."""
    for value in _floats((*node.inputs, *node.outputs)):
        name = str(value.name)
        if not weights.get(name, 0.0) <= LARGEST:
            return f"weights up to {weights[name]:.2g}"
        if not largest.get(name, 0.0) <= LARGEST / HEADROOM:
            return f"values up to {largest[name]:.2g}"
    return None


def _too_small(
    node: ir.Node, largest: Mapping[str, float], weights: Mapping[str, float], kept: Mapping[ir.Node, Kept]
) -> str | None:
    """Where a number matters of which float16 has few bits or none: it is a result, or is multiplied. What is added to
    larger ones may be lost."""
    for value in _floats((*node.inputs, *node.outputs)):
        name, made = str(value.name), value.producer()
        most = weights.get(name, largest.get(name, 0.0))
        read = node.op_type in _MULTIPLYING or (made in kept and node.op_type in _MOVING)
        if 0 < most < SMALLEST and (read or (made is node and node.op_type not in _MOVING)):
            return f"{'weights' if name in weights else 'values'} of at most {most:.2g}"
    return None


def _is_small(value: ir.Value, kept: Mapping[ir.Node, Kept], reader: ir.Node) -> bool:
    """A constant that float16 does not hold, or what follows from one where its size matters."""
    producer = value.producer()
    if producer is not None and kept.get(producer) == _SMALL:
        return reader.op_type in _SENSITIVE
    return _is_small_constant(value)


def _is_small_constant(value: ir.Value) -> bool:
    tensor = value.const_value if value.is_initializer() else None
    if tensor is None or int(np.prod(tensor.shape.numpy(), dtype=np.int64)) != 1:
        return False
    number = abs(float(tensor.numpy().reshape(-1)[0]))
    return 0 < number < SMALLEST


@dataclass
class _Lowering:
    """Puts casts between what is in float16 and what stays."""

    graph: ir.Graph
    kept: set[ir.Node]
    keep_io_types: bool
    casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = field(default_factory=dict)

    def run(self) -> None:
        graph = self.graph
        outputs = [(value, self._delivered(value)) for value in graph.outputs]
        if not self.keep_io_types:
            for given in _floats(graph.inputs):
                given.type = ir.TensorType(HALF)
        for node in list(graph):
            wanted = SINGLE if node in self.kept else HALF
            for position, value in enumerate(node.inputs):
                if value is not None and value.dtype in (SINGLE, HALF) and value.dtype != wanted:
                    node.replace_input_with(position, self._cast(value, wanted, node))
            if wanted == HALF:
                _lower_attributes(node)
                for value in _floats(node.outputs):
                    value.type = ir.TensorType(HALF)
        for position, (output, delivered) in enumerate(outputs):
            if delivered is not None and output.dtype != delivered:
                name, output.name = output.name, f"{output.name}_as_computed"
                node = ir.node("Cast", [output], {"to": int(delivered)})
                node.outputs[0].name, node.outputs[0].shape = name, output.shape
                node.outputs[0].type = ir.TensorType(delivered)
                graph.append(node)
                graph.outputs[position] = node.outputs[0]

    def _delivered(self, output: ir.Value) -> ir.DataType | None:
        return HALF if output.dtype == SINGLE and not self.keep_io_types else output.dtype

    def _cast(self, value: ir.Value, dtype: ir.DataType, before: ir.Node) -> ir.Value:
        known = self.casts.get((value, dtype))
        if known is not None:
            return known
        name = f"{value.name}_{'half' if dtype == HALF else 'single'}"
        if value.is_initializer() and value.const_value is not None:
            array = value.const_value.numpy().astype(dtype.numpy())
            made = ir.Value(
                name=name, const_value=ir.tensor(array, name=name), type=ir.TensorType(dtype), shape=value.shape
            )
            self.graph.initializers[name] = made
        else:
            node = ir.node("Cast", [value], {"to": int(dtype)})
            made = node.outputs[0]
            made.name, made.type, made.shape = name, ir.TensorType(dtype), value.shape
            self.graph.insert_before(before, node)
        self.casts[(value, dtype)] = made
        return made


def _lower_attributes(node: ir.Node) -> None:
    """What an operator says of its own outputs' dtype, in attributes."""
    for name, attribute in list(node.attributes.items()):
        if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype == SINGLE:
            array = np.clip(attribute.as_tensor().numpy(), -LARGEST, LARGEST).astype(np.float16)
            node.attributes[name] = ir.AttrTensor(name, ir.tensor(array))
        elif node.op_type == "Cast" and name == "to" and attribute.as_int() == SINGLE:
            node.attributes[name] = ir.AttrInt64(name, int(HALF))


def _drop_unused(graph: ir.Graph) -> None:
    """Drop the initializers whose float16 copies are read instead."""
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]
