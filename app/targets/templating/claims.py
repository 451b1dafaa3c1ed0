"""What a template says of each tensor of the artifacts that it fills, in the ledger's terms."""

from collections.abc import Iterable, Mapping
from functools import partial
from hashlib import sha256

from torch import Tensor

from app.targets.claims import Claim, ClaimKind, ValueOf
from app.targets.templating.recipe import Operation, Recipe, Weight, evaluate, weights_of


def claims(
    slots: Iterable[tuple[str, Recipe]], own: Iterable[tuple[str, bytes]], operands: Mapping[str, Tensor]
) -> Mapping[str, Claim]:
    """One claim for every place of an artifact that holds a tensor.

    ``slots`` gives the recipe of each place that weights fill, ``own`` the raw data of the template at every other,
    ``operands`` the constants that recipes mention.
    """
    constants = {place: Claim("constant", sha256=sha256(data).hexdigest()) for place, data in own}
    return constants | {place: _claim(recipe, operands) for place, recipe in slots}


def _claim(recipe: Recipe, operands: Mapping[str, Tensor]) -> Claim:
    tensors = tuple(dict.fromkeys(weights_of(recipe)))
    match recipe:
        case Operation("int8", (inner,), attributes):
            return Claim("quantized", tensors, partial(_value, inner, tensors, operands), axis=attributes["axis"])
        case Operation("int8_scale", (inner,), attributes):
            return Claim("scale", tensors, partial(_value, inner, tensors, operands), axis=attributes["axis"])
    return Claim(_kind(recipe), tensors, partial(_value, recipe, tensors, operands))


def _kind(recipe: Recipe) -> ClaimKind:
    match recipe:
        case Weight():
            return "identical"
        case Operation("permute", (Weight(),)):
            return "transposed"
        case Operation("reshape", (Weight(),)):
            return "reshaped"
        case Operation("cast", (Weight(),)):
            return "cast"
    return "arranged"


def _value(recipe: Recipe, keys: tuple[str, ...], operands: Mapping[str, Tensor], value_of: ValueOf) -> Tensor:
    return evaluate(recipe, {key: value_of(key) for key in keys}, operands)
