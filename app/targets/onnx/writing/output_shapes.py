"""The shapes that a file declares for its outputs, checked against what ONNX can infer from the graph."""

import onnx
import onnx_ir as ir

from app.targets.onnx.writing.opset import without_weights


def refine_output_shapes(model: ir.Model, *, sizes_known: bool) -> None:
    """Correct output dims that an exporter declared from the sample.

    Where inference finds an input's axis, that is the dim. Where it finds nothing and the exporter declared a size,
    the size stays if ``sizes_known`` (torch.export keeps track of sizes; a trace does not) and is left open otherwise.
    """
    proto = without_weights(model)
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    del proto.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    axes = {str(dim) for value in model.graph.inputs for dim in value.shape or () if isinstance(dim, ir.SymbolicDim)}
    for value, found in zip(model.graph.outputs, inferred.graph.output, strict=True):
        if value.shape is not None and found.type.tensor_type.HasField("shape"):
            dims = zip(value.shape, found.type.tensor_type.shape.dim, strict=False)
            value.shape = ir.Shape([_dim(declared, dim, axes, sizes_known) for declared, dim in dims])


def _dim(
    declared: int | ir.SymbolicDim, found: onnx.TensorShapeProto.Dimension, axes: set[str], sizes_known: bool
) -> int | str | None:
    if found.HasField("dim_value"):
        return int(found.dim_value)
    if found.dim_param in axes:
        return str(found.dim_param)
    if isinstance(declared, int):
        return declared if sizes_known else None
    return declared.value
