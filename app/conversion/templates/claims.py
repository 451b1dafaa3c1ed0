"""What a template says of each initializer it writes, in the ledger's terms."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from hashlib import sha256

import onnx
from onnx import numpy_helper
from torch import Tensor

from app.conversion.templates.onnx_template import OnnxTemplate
from app.conversion.templates.pieces import Slot
from app.conversion.templates.recipe import Operation, Recipe, Weight, evaluate, weights_of
from app.conversion.verification.claims import InitializerClaim


def claims(template: OnnxTemplate) -> Mapping[str, InitializerClaim]:
    """One claim for every initializer of an artifact filled from the template, by name."""
    constants = {
        tensor.name: InitializerClaim("constant", sha256=sha256(numpy_helper.to_array(tensor).tobytes()).hexdigest())
        for tensor in _kept_initializers(template)
    }
    return constants | {slot.name: _claim(slot, template.constants) for slot in template.slots}


def _kept_initializers(template: OnnxTemplate) -> Iterator[onnx.TensorProto]:
    """The template's own tensors, those of the bodies of loops and branches too."""
    pending = [onnx.ModelProto.FromString(template.graph_without_weights()).graph]
    while pending:
        graph = pending.pop()
        yield from graph.initializer
        for attribute in (attribute for node in graph.node for attribute in node.attribute):
            pending += [attribute.g, *attribute.graphs] if attribute.HasField("g") else attribute.graphs


def _claim(slot: Slot, constants: Mapping[str, Tensor]) -> InitializerClaim:
    match slot.recipe:
        case Weight(key):
            return InitializerClaim("identical", (key,))
        case Operation("permute", (Weight(key),), {"perm": perm}):
            return InitializerClaim("transposed", (key,), perm=tuple(perm))
        case Operation("reshape", (Weight(key),), _):
            return InitializerClaim("reshaped", (key,))
        case Operation("cast", (Weight(key),), _):
            return InitializerClaim("cast", (key,))
    tensors = tuple(dict.fromkeys(weights_of(slot.recipe)))
    return InitializerClaim("arranged", tensors, arrange=partial(_arrange, slot.recipe, tensors, constants))


def _arrange(
    recipe: Recipe, keys: tuple[str, ...], constants: Mapping[str, Tensor], value_of: Callable[[str], Tensor]
) -> Tensor:
    return evaluate(recipe, {key: value_of(key) for key in keys}, constants)
