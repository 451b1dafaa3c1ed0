"""Opsets and IR versions: the one asked for is the one in the file, or there is a clear error."""

from collections.abc import Callable
from dataclasses import replace

import onnx
import onnx_ir as ir
import onnxscript.optimizer
from onnx import version_converter

from app.domain.errors import InvalidOptions, UnsupportedOpset
from app.targets.capturing.quiet import first_line
from app.targets.onnx.spec import OnnxOptions
from app.targets.request import ExportRequest

EXPORT_MINIMUM = 18
"""torch.onnx's operator library is written in opset 18 (torch/onnx/_internal/exporter/_constants.py); below it the
exporter converts, and on failure silently delivers 18. So Recast exports at 18 and converts itself."""

DEFAULT = 18
"""The opset delivered when none is asked for: what the exporter writes without conversion, and what runtimes since
2023 read."""

NEWER = 20
"""The opset tried where none was asked for and DEFAULT lacks an operator (deform_conv2d needs 19, a grid_sample of
volumes 20): the newest that both exporters write."""

_SMALL = 64

LOWEST = 7
NEWEST = min(onnx.defs.onnx_opset_version(), 23)
"""torch.onnx documents and tests opsets up to 23 (torch/onnx/_constants.py, ONNX_MAX_OPSET)."""


def checked_opset(options: OnnxOptions) -> int:
    """The opset to deliver. Raises UnsupportedOpset outside LOWEST..NEWEST."""
    default = DEFAULT if options.limits is None else min(DEFAULT, options.limits.opset)
    opset = default if options.opset is None else options.opset
    if not LOWEST <= opset <= NEWEST:
        raise UnsupportedOpset(
            f"Opset {opset} was asked for; {LOWEST} to {NEWEST} can be delivered.",
            stage="export",
            lowest_opset=LOWEST,
            highest_opset=NEWEST,
        )
    return opset


def with_opset(request: ExportRequest, opset: int) -> ExportRequest | None:
    """The request for a file of that opset; None where the client chose one, or the target has none."""
    if not isinstance(request.options, OnnxOptions) or request.options.opset is not None:
        return None
    limits = request.options.limits
    if limits is not None and limits.opset < opset:
        return None
    return replace(request, options=request.options.model_copy(update={"opset": opset}))


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
            f"The graph cannot be written in opset {opset}: {first_line(str(error))}",
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
    bare = ir.from_proto(without_weights(model, keep=_may_be_read))
    # Axes that were inputs become attributes below opset 18, so what computes them must be folded into constants.
    onnxscript.optimizer.fold_constants(bare, onnx_shape_inference=False, output_size_limit=_SMALL)
    _drop_default_attributes(bare)
    proto = ir.to_proto(bare)
    converted_proto = version_converter.convert_version(proto, opset)
    onnx.checker.check_model(converted_proto)
    converted = ir.from_proto(converted_proto)
    delivered = converted.opset_imports.get("")
    if delivered != opset:
        raise ValueError(f"the converter delivered opset {delivered}")
    weights = model.graph.initializers
    for value in [value for value in converted.graph.inputs if value.name in weights]:
        converted.graph.inputs.remove(value)
        converted.graph.initializers.add(value)
    for name, value in converted.graph.initializers.items():
        if name in weights:
            value.const_value = weights[name].const_value
    converted.ir_version = model.ir_version
    return converted


def _drop_default_attributes(model: ir.Model) -> None:
    """Take off ``noop_with_empty_axes=0``, its default; onnx's converter leaves it in opsets that lack it."""
    for node in model.graph.all_nodes():
        attribute = node.attributes.get("noop_with_empty_axes")
        if attribute is not None and attribute.value == 0:
            del node.attributes["noop_with_empty_axes"]


def without_weights(model: ir.Model, *, keep: Callable[[ir.Value], bool] = lambda _: False) -> onnx.ModelProto:
    """The model as a proto whose initializers, but those to ``keep``, are inputs. ``model`` is as before afterwards."""
    graph = model.graph
    initializers = dict(graph.initializers)
    weights = [value for value in initializers.values() if not keep(value)]
    for value in weights:
        del graph.initializers[str(value.name)]
    graph.inputs.extend(weights)
    try:
        return ir.to_proto(model)
    finally:
        for value in weights:
            graph.inputs.remove(value)
        graph.initializers.clear()
        graph.initializers.update(initializers)


def _may_be_read(value: ir.Value) -> bool:
    """Axes, shapes and pads, which the converter turns into attributes and back."""
    tensor = value.const_value
    return tensor is not None and tensor.dtype == ir.DataType.INT64 and tensor.size <= _SMALL
