"""Attribute audit: constants of the graph against those that eager was seen to use, where parity may be blind.

An epsilon ten times too large can hide behind large variances, and the tanh form of GELU lies 5e-4 from the erf form.
The oracle's trace (widening.py) holds every epsilon and GELU form that the forward really used, functional calls too.
A bound of a clamp that no probe reaches may be any number. Four rules, each of which an honest export keeps:

1. the epsilon of every normalisation in the artifact, and every small number added before a square root, is one that
   eager used; a tensor of one element, such as a learned epsilon, is no number: the ledger holds it to its bytes
2. where the artifact has as many normalisations of a kind as eager called, their epsilons agree one for one
3. the artifact has no more tanh GELUs and no fewer erf GELUs than eager called
4. where the artifact has as many constant bounds of clamps as eager gave, they are the same numbers

Rules 2 to 4 need straight-line graphs: they are not applied to a graph with loops, branches or local functions.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx
import torch

from app.conversion.verification.artifact.onnx_graph import all_nodes
from app.conversion.verification.artifact.torchscript_graph import constant_arguments, count
from app.conversion.verification.widening import CLAMPS, Trace

_ONNX_NORMS = {
    "BatchNormalization": "batch_norm",
    "LayerNormalization": "layer_norm",
    "GroupNormalization": "group_norm",
    "InstanceNormalization": "instance_norm",
    "RMSNormalization": "rms_norm",
}
_DEFAULT_EPSILON = 1e-5
"""Of every ONNX normalisation operator (onnx operator documentation)."""
_LARGEST_EPSILON = 0.05
"""A larger constant added before a square root is arithmetic (asinh: 1), not an epsilon."""


@dataclass(frozen=True)
class GraphConstants:
    """The constants that an artifact computes with, as far as they are audited."""

    norms: tuple[tuple[str, float], ...]
    """(kind as torch names it, epsilon) of each normalisation operator."""
    hidden: tuple[float, ...] = ()
    """Small constants added before a square root: epsilons of decomposed normalisations."""
    erf: int = 0
    tanh_gelu: int = 0
    bounds: tuple[float, ...] = ()
    """Constant bounds of clamps."""
    straight: bool = True


def audit(trace: Trace, graph: GraphConstants) -> list[str]:
    """Complaints; empty when every audited constant is accounted for."""
    used = {_single(scalar) for scalar in trace.scalars}
    complaints = [
        f"{kind} has epsilon {epsilon:g}, which the model does not use"
        for kind, epsilon in graph.norms
        if _single(epsilon) not in used
    ]
    complaints += [
        f"a constant {epsilon:g} is added before a square root, which the model does not use"
        for epsilon in graph.hidden
        if _single(epsilon) not in used
    ]
    if graph.straight:
        complaints += _epsilons_one_for_one(trace, graph) + _gelu(trace, graph) + _bounds(trace, graph)
    return list(dict.fromkeys(complaints))


def _epsilons_one_for_one(trace: Trace, graph: GraphConstants) -> list[str]:
    complaints = []
    for kind in dict.fromkeys(kind for kind, _ in graph.norms):
        delivered = Counter(_single(epsilon) for k, epsilon in graph.norms if k == kind)
        called = Counter(_single(epsilon) for epsilon in _eager_epsilons(trace, kind))
        if delivered.total() == called.total() and delivered != called:
            complaints.append(f"{kind} epsilons are {_listed(delivered)}, the model uses {_listed(called)}")
    return complaints


def _eager_epsilons(trace: Trace, kind: str) -> Iterable[float]:
    for call in trace.calls:
        if call.name.removeprefix("native_") == kind:
            yield from (float(v) for k, v in call.attributes if k == "eps")


def _gelu(trace: Trace, graph: GraphConstants) -> list[str]:
    forms = Counter(dict(call.attributes).get("approximate") for call in trace.calls if call.name == "gelu")
    complaints = []
    if graph.tanh_gelu > forms["tanh"]:
        complaints.append(f"{graph.tanh_gelu} GELUs are of the tanh form, the model uses it {forms['tanh']} times")
    if graph.erf < forms["none"]:
        complaints.append(f"{graph.erf} GELUs are of the erf form, the model uses it {forms['none']} times")
    return complaints


def _bounds(trace: Trace, graph: GraphConstants) -> list[str]:
    given = Counter(
        _single(float(value)) for call in trace.calls if call.name in CLAMPS for name, value in call.attributes
    )
    delivered = Counter(_single(bound) for bound in graph.bounds)
    if delivered.total() != given.total() or delivered == given:
        return []
    return [f"clamps have the bounds {_listed(delivered)}, the model uses {_listed(given)}"]


def _single(value: float) -> float:
    """The value as float32 stores it, to six digits: exporters write epsilons as float32 or as text."""
    return float(f"{np.float32(value):.6g}")


def _listed(epsilons: Counter[float]) -> str:
    return ", ".join(f"{value:g} × {count}" for value, count in sorted(epsilons.items()))


# --- ONNX ----------------------------------------------------------------------------------------------------------


def onnx_constants(model: onnx.ModelProto) -> GraphConstants:
    """What an ONNX graph computes with."""
    nodes = list(all_nodes(model))
    norms = [(_ONNX_NORMS[n.op_type], _epsilon(n)) for n in nodes if n.op_type in _ONNX_NORMS]
    gelus = [_text_attribute(node, "approximate", "none") for node in nodes if node.op_type == "Gelu"]
    return GraphConstants(
        norms=tuple(norms),
        hidden=tuple(_hidden_epsilons(model, nodes)),
        erf=gelus.count("none") + sum(node.op_type == "Erf" for node in nodes),
        tanh_gelu=gelus.count("tanh"),
        bounds=tuple(_clip_bounds(model, nodes)),
        straight=not model.functions and not any(node.op_type in ("Loop", "If", "Scan") for node in nodes),
    )


def _epsilon(node: onnx.NodeProto) -> float:
    return next((a.f for a in node.attribute if a.name == "epsilon"), _DEFAULT_EPSILON)


def _text_attribute(node: onnx.NodeProto, name: str, default: str) -> str:
    return next((a.s.decode() for a in node.attribute if a.name == name), default)


def _hidden_epsilons(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> list[float]:
    """Numbers c of Sqrt(Add(x, c)) with 0 < c ≤ _LARGEST_EPSILON.

    Both exporters store a number of the code as a tensor without axes.
    """
    scalars = _stored(model, nodes)
    roots = {node.input[0] for node in nodes if node.op_type == "Sqrt"}
    found = []
    for node in nodes:
        if node.op_type == "Add" and node.output[0] in roots:
            for tensor in (scalars[name] for name in node.input if name in scalars):
                value = onnx.numpy_helper.to_array(tensor)
                if value.ndim == 0 and 0 < float(value) <= _LARGEST_EPSILON:
                    found.append(float(value))
    return found


def _clip_bounds(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> list[float]:
    """Numbers that floats are clipped to; exporters may write an integer and cast it."""
    stored = _stored(model, nodes)
    cast = {node.output[0]: node.input[0] for node in nodes if node.op_type in ("Cast", "CastLike")}
    bounds = (name for node in nodes if node.op_type == "Clip" for name in node.input[1:])
    found = [(name in cast, stored.get(cast.get(name, name))) for name in bounds]
    values = [(is_cast, onnx.numpy_helper.to_array(tensor)) for is_cast, tensor in found if tensor is not None]
    return [float(value) for is_cast, value in values if value.ndim == 0 and (is_cast or value.dtype.kind == "f")]


def _stored(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> dict[str, onnx.TensorProto]:
    """Initializers and constants by name."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    return stored | {
        n.output[0]: a.t for n in nodes if n.op_type == "Constant" for a in n.attribute if a.name == "value"
    }


# --- TorchScript ---------------------------------------------------------------------------------------------------


def torchscript_constants(loaded: torch.jit.ScriptModule) -> GraphConstants:
    """What a TorchScript program computes with. Operators inside branches and loops are seen, but not counted."""
    norms = [
        (kind, float(arguments["eps"]))
        for kind in _ONNX_NORMS.values()
        for arguments in constant_arguments(loaded, f"aten::{kind}")
        if arguments.get("eps") is not None  # None: that of the dtype, as in the model's own call
    ]
    gelus = [arguments.get("approximate") for arguments in constant_arguments(loaded, "aten::gelu")]
    return GraphConstants(
        norms=tuple(norms),
        erf=gelus.count("none") + count(loaded, "aten::erf"),
        tanh_gelu=gelus.count("tanh"),
        bounds=tuple(_clamp_bounds(loaded)),
        straight=count(loaded, "prim::If") == count(loaded, "prim::Loop") == 0,
    )


def _clamp_bounds(loaded: torch.jit.ScriptModule) -> list[float]:
    found = []
    for name, arguments in CLAMPS.items():
        for call in constant_arguments(loaded, f"aten::{name}") + constant_arguments(loaded, f"aten::{name}_"):
            given = {**arguments, **{k: v for k, v in call.items() if k in arguments}}
            found += [float(value) for value in given.values() if value is not None]
    return found
