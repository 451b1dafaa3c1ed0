"""Optimising a graph whose weights are inputs: what onnxscript's optimiser does, minus what cannot apply here.

``onnxscript.optimizer.optimize`` tries some forty patterns at every node, among them folds of batch norms (their
weights are not constants here), quantised operators (the exporters emit none) and one that compares all pairs of
slices. Trying only patterns that end in an operator the graph has takes a quarter of the time on transformers, for the
same graph.
"""

from collections.abc import Collection
from itertools import count

import onnx_ir as ir
from onnx_ir.passes import Sequential, common
from onnxscript.optimizer import fold_constants_ir
from onnxscript.rewriter import RewritePass, RewriteRule
from onnxscript.rewriter.rules import common as rules

_RULES: dict[str, tuple[RewriteRule, ...]] = {
    "Add": tuple(rules.add_0_rule.commute()),
    "Sub": (rules.sub_0_rule,),
    "Mul": tuple(rules.mul_by_1_rule.commute()),
    "Div": (rules.div_by_1_rule,),
    "Dropout": (rules.dropout_zero_rule, rules.dropout_inference_rule),
    "Cast": (
        rules.cast_cast_rule,
        rules.no_op_cast_rule,
        rules.cast_constant_of_shape_rule,
        rules.cast_constant_of_shape_without_value_rule,
    ),
    "Slice": (rules.collapse_slice_rule, rules.collapse_slice2_rule),
    "Reshape": (
        rules.reshape_reshape_rule,
        rules.squeeze_reshape_1d_rule,
        rules.materialize_reshape_shape_rule,
        rules.two_reshapes_matmul_reshape_rule,
        rules.one_reshape_matmul_reshape_rule,
    ),
    "Flatten": (rules.flatten_to_reshape_rule,),
    "Expand": (rules.no_op_expand_rule,),
    "Transpose": (rules.no_op_transpose_rule, rules.transpose_transpose_rule),
    "Unsqueeze": (rules.unsqueeze_unsqueeze_rule,),
    "Min": (rules.min_min_rule, rules.max_min_rule),
    "Max": (rules.max_max_rule, rules.min_max_rule),
    "Relu": (rules.successive_relu_rule, rules.successive_clip_relu_rule),
    "Clip": (rules.successive_clip_rule, rules.successive_relu_clip_rule),
    "ScatterND": (rules.no_op_dynamic_scatter_nd_rule, rules.no_op_static_scatter_nd_rule),
    "Conv": (
        rules.normalize_pad_format_conv_rule,
        rules.fuse_pad_into_conv_rule,
        rules.remove_optional_bias_from_conv_rule,
    ),
    "ConvTranspose": (rules.remove_optional_bias_from_conv_transpose_rule,),
    "Gemm": (rules.remove_optional_bias_from_gemm_rule,),
}
"""onnxscript's default rules by the operator that their pattern ends in."""

_ROUNDS = 2
"""As onnxscript's optimiser: a second round catches what the first one laid open."""


def optimise(model: ir.Model) -> None:
    """Fold constants, rewrite, remove what is unused or computed twice. In place."""
    common.InlinePass()(model)
    for _ in range(_ROUNDS):
        if not _round(model):
            break
    lift_constants(model)
    Sequential(
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    )(model)


def lift_constants(model: ir.Model) -> None:
    """Make initializers of the main graph of all constants, and remove what is unused. In place."""
    Sequential(
        common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
    )(model)


def _round(model: ir.Model) -> bool:
    folded = fold_constants_ir(model, onnx_shape_inference=True).modified
    present = {node.op_type for node in model.graph.all_nodes()}
    applicable = [rule for op_type, found in _RULES.items() if op_type in present for rule in found]
    rewritten = RewritePass(applicable)(model).modified if applicable else False
    _adopt_constants(model)
    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
    common.RemoveUnusedOpsetsPass()(model)
    return bool(folded or rewritten)


def _adopt_constants(model: ir.Model) -> None:
    """Give every constant that a rule made a place in the main graph.

    A rule names its constants after the value that it matched. Where it matched that value twice, the second constant
    takes the name, and the first is left to its node without a graph that holds it.
    """
    for node in model.graph.all_nodes():
        for value in node.inputs:
            if value is not None and value.const_value is not None and value.producer() is None and value.graph is None:
                value.name = _free_name(str(value.name), model.graph.initializers.keys())
                model.graph.register_initializer(value)


def _free_name(name: str, taken: Collection[str]) -> str:
    return next(free for number in count(1) if (free := f"{name}_{number}") not in taken)
