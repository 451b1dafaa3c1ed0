"""Opsets and IR versions: the one asked for is the one in the file, or there is a clear error."""

import onnx
import onnx_ir as ir
from onnx import version_converter

from app.domain.errors import InvalidOptions, UnsupportedOpset

EXPORT_MINIMUM = 18
"""torch.onnx's operator library is written in opset 18 (torch/onnx/_internal/exporter/_constants.py); below it the
exporter converts, and on failure silently delivers 18. So Recast exports at 18 and converts itself."""

DEFAULT = 18
"""The opset delivered when none is asked for: what the exporter writes without conversion, and what runtimes since
2023 read."""

LOWEST = 7
NEWEST = min(onnx.defs.onnx_opset_version(), 23)
"""torch.onnx documents and tests opsets up to 23 (torch/onnx/_constants.py, ONNX_MAX_OPSET)."""


def checked_opset(asked: int | None) -> int:
    """The opset to deliver. Raises UnsupportedOpset outside LOWEST..NEWEST."""
    opset = DEFAULT if asked is None else asked
    if not LOWEST <= opset <= NEWEST:
        raise UnsupportedOpset(
            f"Opset {opset} was asked for; {LOWEST} to {NEWEST} can be delivered.",
            stage="export",
            lowest_opset=LOWEST,
            highest_opset=NEWEST,
        )
    return opset


def ir_version(asked: int | None, opset: int) -> int:
    """The IR version to write: the one asked for, or the lowest that may hold the opset, so that old runtimes read it.

    Source: the table of versions in onnx/docs/Versioning.md, as onnx.helper knows it. Raises InvalidOptions.
    """
    lowest: int = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)])
    if asked is None:
        return max(lowest, 8)
    if not lowest <= asked <= onnx.IR_VERSION:
        raise InvalidOptions(
            f"ir_version {asked} was asked for; opset {opset} needs IR version {lowest} to {onnx.IR_VERSION}."
        )
    return asked


def deliver_opset(model: ir.Model, opset: int) -> ir.Model:
    """``model`` at ``opset``, converted where it stands at another one.

    The converter sees a graph whose initializers are inputs: weights are neither copied nor folded, and no size limit
    applies. Raises UnsupportedOpset naming the lowest opset that can be reached.
    """
    if model.opset_imports.get("") == opset:
        return model
    start = model.opset_imports.get("", EXPORT_MINIMUM)
    try:
        return _converted(model, opset)
    except (RuntimeError, ValueError, IndexError, onnx.checker.ValidationError) as error:
        lowest = _lowest_reachable(model, start, opset)
        raise UnsupportedOpset(
            f"The graph cannot be written in opset {opset}: {str(error).splitlines()[0][:300]}",
            stage="export",
            hint=f"The lowest opset that this model can be written in is {lowest}.",
            lowest_opset=lowest,
        ) from error


def _lowest_reachable(model: ir.Model, start: int, asked: int) -> int:
    for opset in range(asked + 1, start):
        try:
            _converted(model, opset)
        except (RuntimeError, ValueError, IndexError, onnx.checker.ValidationError):
            continue
        return opset
    return start


def _converted(model: ir.Model, opset: int) -> ir.Model:
    proto = _weightless(model)
    converted = ir.from_proto(version_converter.convert_version(proto, opset))
    delivered = converted.opset_imports.get("")
    if delivered != opset:
        raise ValueError(f"the converter delivered opset {delivered}")
    weights = model.graph.initializers
    for value in [value for value in converted.graph.inputs if value.name in weights]:
        converted.graph.inputs.remove(value)
        value.const_value = weights[str(value.name)].const_value
        converted.graph.initializers.add(value)
    converted.ir_version = model.ir_version
    return converted


def _weightless(model: ir.Model) -> onnx.ModelProto:
    """The model as a proto whose initializers are inputs. ``model`` is as before when this returns."""
    graph = model.graph
    weights = list(graph.initializers.values())
    graph.initializers.clear()
    graph.inputs.extend(weights)
    try:
        return ir.to_proto(model)
    finally:
        for value in weights:
            graph.inputs.remove(value)
            graph.initializers.add(value)
