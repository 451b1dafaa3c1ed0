"""A recipe: another head, body or set of outputs for a registered architecture, told as JSON and not as code.

Layers are those of torch.nn that stand in ``LAYERS``, and four that published models write in their forward. A layer
is ``{"Linear": {"out_features": 37}}`` or, without arguments, ``"ReLU"``; with ``"name"`` beside it, it is called so
within its list. A list is an nn.Sequential; the empty one passes on what it gets. Sizes that follow from what a layer
is given (``in_features``, ``in_channels``, ``num_features``) may be left out: they are found when it is checked.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from pydantic import Field, StrictInt
from recast_plugins.declaration import is_plugin_name

from app.domain.architecture import OutputSpec
from app.domain.base import Value
from app.domain.errors import InvalidOptions, InvalidRecipe
from app.domain.options import check_options

MOST_LAYERS = 200
"""Of one recipe."""
MOST_DEPTH = 8
"""Lists within lists."""
MOST_PARTS = 50
"""Places that are replaced, heads, values that are taken: of each."""
LARGEST = 2**20
"""Of a size; a matrix of twice that would have as many elements as any known model."""
SEGMENT = r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}"
PATH = re.compile(rf"{SEGMENT}(\.{SEGMENT}){{0,15}}")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")

_SIZE: dict[str, Any] = {"type": "integer", "minimum": 1, "maximum": LARGEST}
_LENGTH: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": 4096}
_SIZES: dict[str, Any] = {"anyOf": [_LENGTH, {"type": "array", "items": _LENGTH, "minItems": 1, "maxItems": 3}]}
_SHAPE: dict[str, Any] = {"anyOf": [_SIZE, {"type": "array", "items": _SIZE, "minItems": 1, "maxItems": 4}]}
_NUMBER: dict[str, Any] = {"type": "number", "minimum": -1e6, "maximum": 1e6}
_FLAG: dict[str, Any] = {"type": "boolean"}
_AXIS: dict[str, Any] = {"type": "integer", "minimum": -8, "maximum": 8}
PARAMETERS: Mapping[str, dict[str, Any]] = {
    **dict.fromkeys(("in_features", "out_features", "in_channels", "out_channels", "num_features"), _SIZE),
    **dict.fromkeys(("num_channels", "num_groups", "groups", "num_parameters", "input_size", "hidden_size"), _SIZE),
    **dict.fromkeys(("num_embeddings", "embedding_dim", "upscale_factor", "downscale_factor"), _SIZE),
    **dict.fromkeys(("kernel_size", "stride", "dilation", "output_padding", "size", "output_size"), _SIZES),
    **dict.fromkeys(("bias", "affine", "track_running_stats", "elementwise_affine", "inplace", "ceil_mode"), _FLAG),
    **dict.fromkeys(("count_include_pad", "align_corners", "bidirectional", "batch_first", "keepdim"), _FLAG),
    **dict.fromkeys(("eps", "momentum", "negative_slope", "alpha", "beta", "lambd", "min_val", "max_val"), _NUMBER),
    **dict.fromkeys(("threshold", "value", "init"), _NUMBER),
    **dict.fromkeys(("dim", "start_dim", "end_dim", "index"), _AXIS),
    "dims": {"type": "array", "items": _AXIS, "minItems": 1, "maxItems": 8},
    "p": {"type": "number", "minimum": 0, "maximum": 1},
    "dropout": {"type": "number", "minimum": 0, "maximum": 1},
    "norm": {"type": "number", "minimum": 1, "maximum": 16},
    "num_layers": {"type": "integer", "minimum": 1, "maximum": 32},
    "normalized_shape": _SHAPE,
    "unflattened_size": _SHAPE,
    "padding": {"anyOf": [*_SIZES["anyOf"], {"enum": ["same", "valid"]}]},
    "scale_factor": {"type": "number", "exclusiveMinimum": 0, "maximum": 64},
    "mode": {"enum": ["nearest", "nearest-exact", "linear", "bilinear", "bicubic", "trilinear"]},
    "padding_mode": {"enum": ["zeros", "reflect", "replicate", "circular"]},
    "approximate": {"enum": ["none", "tanh"]},
}
"""What each argument of a layer may be, as JSON Schema."""

_CONVOLUTION = "out_channels kernel_size stride padding dilation groups bias padding_mode in_channels"
_TRANSPOSED = "out_channels kernel_size stride padding output_padding groups bias dilation in_channels"
_BATCH_NORM = "num_features eps momentum affine track_running_stats"
_RECURRENT = "hidden_size num_layers bias batch_first dropout bidirectional input_size"


@dataclass(frozen=True)
class Kind:
    """A kind of layer: its arguments, those that must be given, and the one that follows from an axis of its input."""

    arguments: tuple[str, ...]
    required: tuple[str, ...] = ()
    inferred: str | None = None
    axis: int = 1

    @property
    def schema(self) -> dict[str, Any]:
        properties = {name: PARAMETERS[name] for name in self.arguments}
        return {
            "type": "object",
            "properties": properties,
            "required": list(self.required),
            "additionalProperties": False,
        }


def _kinds(names: str, arguments: str = "", required: int = 0, inferred: str | None = None, axis: int = 1) -> Any:
    listed = tuple(arguments.split())
    return {name: Kind(listed, listed[:required], inferred, axis) for name in names.split()}


LAYERS: Mapping[str, Kind] = {
    **_kinds("Linear", "out_features bias in_features", 1, "in_features", -1),
    **_kinds("Conv1d Conv2d Conv3d", _CONVOLUTION, 2, "in_channels"),
    **_kinds("ConvTranspose1d ConvTranspose2d ConvTranspose3d", _TRANSPOSED, 2, "in_channels"),
    **_kinds("BatchNorm1d BatchNorm2d BatchNorm3d", _BATCH_NORM, 0, "num_features"),
    **_kinds("InstanceNorm1d InstanceNorm2d InstanceNorm3d", _BATCH_NORM, 0, "num_features"),
    **_kinds("LayerNorm", "normalized_shape eps elementwise_affine bias", 0, "normalized_shape", -1),
    **_kinds("RMSNorm", "normalized_shape eps elementwise_affine", 0, "normalized_shape", -1),
    **_kinds("GroupNorm", "num_groups num_channels eps affine", 1, "num_channels"),
    **_kinds("LSTM GRU", _RECURRENT, 1, "input_size", -1),
    **_kinds("PReLU", "num_parameters init"),
    **_kinds("ReLU ReLU6 SiLU Mish Hardswish Hardsigmoid", "inplace"),
    **_kinds("Sigmoid Tanh Softsign LogSigmoid Tanhshrink Identity"),
    **_kinds("LeakyReLU", "negative_slope inplace"),
    **_kinds("ELU CELU", "alpha inplace"),
    **_kinds("SELU", "inplace"),
    **_kinds("GELU", "approximate"),
    **_kinds("Hardtanh", "min_val max_val inplace"),
    **_kinds("Softplus", "beta threshold"),
    **_kinds("Threshold", "threshold value inplace", 2),
    **_kinds("Softmax LogSoftmax Softmin GLU", "dim"),
    **_kinds("Dropout Dropout1d Dropout2d Dropout3d AlphaDropout", "p inplace"),
    **_kinds("Flatten", "start_dim end_dim"),
    **_kinds("Unflatten", "dim unflattened_size", 2),
    **_kinds("AvgPool1d AvgPool2d AvgPool3d", "kernel_size stride padding ceil_mode count_include_pad", 1),
    **_kinds("MaxPool1d MaxPool2d MaxPool3d", "kernel_size stride padding dilation ceil_mode", 1),
    **_kinds("AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d", "output_size", 1),
    **_kinds("AdaptiveMaxPool1d AdaptiveMaxPool2d AdaptiveMaxPool3d", "output_size", 1),
    **_kinds("Upsample", "size scale_factor mode align_corners"),
    **_kinds("PixelShuffle", "upscale_factor", 1),
    **_kinds("PixelUnshuffle", "downscale_factor", 1),
    **_kinds("ChannelShuffle", "groups", 1),
    **_kinds("Normalize", "norm dim eps"),
    **_kinds("AdaptiveConcatPool2d", "output_size"),
    **_kinds("Mean", "dims keepdim", 1),
    **_kinds("Select", "dim index", 2),
}
"""The layers that a recipe may be made of. The last four are no modules of torch.nn: ``Normalize`` is
torch.nn.functional.normalize (its ``p`` is ``norm`` here), ``AdaptiveConcatPool2d`` fastai's pooling by maximum and
mean, ``Mean`` tensor.mean(dims), ``Select`` tensor.select(dim, index), such as the first token of a sequence."""


@dataclass(frozen=True)
class Layer:
    """One layer with its arguments."""

    kind: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def told(self) -> Any:
        return {self.kind: dict(self.arguments)} if self.arguments else self.kind


@dataclass(frozen=True)
class Sequence:
    """Layers one after the other, each under its name: its place, where none was told."""

    members: tuple[tuple[str, "Layers"], ...]

    def told(self) -> Any:
        return [
            _named(member.told(), None if name == str(at) else name) for at, (name, member) in enumerate(self.members)
        ]


Layers = Layer | Sequence


@dataclass(frozen=True)
class Head:
    """Layers that are given values by name; of several, joined along axis 1."""

    layers: Layers
    input: tuple[str, ...] = ()
    """Empty: the first value that the base gives."""


@dataclass(frozen=True)
class Recipe:
    """A recipe that is well-formed. Whether its paths and sizes fit the base, only building it tells."""

    name: str
    base: str
    options: Mapping[str, Any]
    replace: Mapping[str, Layers]
    children: int | None
    """The base is an nn.Sequential of so many of its children, as Python's ``list(base.children())[:children]``."""
    prefix: str
    """Where the base stands within the module: the first part of its keys."""
    take: Mapping[str, str]
    """Values of parts of the base by the name that they are given here."""
    heads: Mapping[str, Head]
    outputs: Mapping[str, str]
    """Name of each output, to the value that it is; where parts are replaced alone, the names of the base's outputs."""
    inputs: Mapping[str, tuple[int | str, ...]]
    """Other shapes of inputs than the base's."""
    summary: str

    @property
    def composed(self) -> bool:
        """Whether more is done than to replace parts of the base, whose own forward then stays."""
        return bool(self.heads or self.take or self.prefix or self.children is not None)

    def told(self) -> dict[str, Any]:
        """As JSON, in one form whatever way it was written."""
        heads = {
            name: {"layers": head.layers.told(), **({"input": list(head.input)} if head.input else {})}
            for name, head in self.heads.items()
        }
        members = {
            "base": self.base,
            "options": dict(self.options),
            "replace": {path: layers.told() for path, layers in self.replace.items()},
            "children": self.children,
            "prefix": self.prefix,
            "take": dict(self.take),
            "heads": heads,
            "outputs": dict(self.outputs),
            "inputs": {name: list(shape) for name, shape in self.inputs.items()},
            "summary": self.summary,
        }
        return {"name": self.name, **{key: value for key, value in members.items() if value not in ({}, [], "", None)}}

    @property
    def digest(self) -> str:
        """sha256 of all that it says but its name: its version."""
        said = {key: value for key, value in self.told().items() if key != "name"}
        return hashlib.sha256(json.dumps(said, separators=(",", ":")).encode()).hexdigest()


class CheckedRecipe(Value):
    """A recipe whose sizes were found by building it: what its conversions are made of."""

    recipe: dict[str, Any]
    """As ``Recipe.told``, with all sizes."""
    digest: str
    """Of the recipe as it was asked for."""
    outputs: tuple[OutputSpec, ...]

    @property
    def base(self) -> str:
        """The architecture that it is a recipe of."""
        return str(self.recipe["base"])


def source_digest(checked: CheckedRecipe, of_base: str | None) -> str:
    """sha256 of what the module is made by: the recipe with its sizes, and its base's source, where that has one."""
    shaping = {key: value for key, value in checked.recipe.items() if key not in ("name", "summary")}
    return hashlib.sha256(json.dumps([shaping, of_base], separators=(",", ":")).encode()).hexdigest()


class RecipeRequest(Value):
    """Another head, body or set of outputs for a registered architecture, without code."""

    name: str = Field(max_length=200, description="Lower-case, with a slash: vision/crop-net")
    base: str = Field(max_length=300, description="The architecture that it is made of, no recipe itself")
    options: dict[str, Any] = Field(default={}, description="Options of the base")
    replace: dict[str, Any] = Field(
        default={}, description="Module path of the base to the layers in its place; [] passes on what it gets"
    )
    children: int | None = Field(
        default=None,
        ge=-1000,
        le=1000,
        strict=True,
        description="Keep list(base.children())[:children], as an nn.Sequential",
    )
    prefix: str = Field(default="", max_length=300, description="Where the base stands within the module: backbone")
    take: dict[str, str] = Field(default={}, description="Name to module path: values of inner parts")
    heads: dict[str, Any] = Field(
        default={}, description="Name to layers, or to an object of layers and input (names of values)"
    )
    outputs: list[str] | dict[str, str] = Field(
        default=[],
        max_length=MOST_PARTS,
        description="Names of the outputs: heads, values taken; or name to such a value",
    )
    inputs: dict[str, tuple[StrictInt | str, ...]] = Field(default={}, description="Other shapes of the base's inputs")
    summary: str = Field(default="", max_length=300)


def recipe_of(asked: RecipeRequest) -> Recipe:
    """The recipe, checked as far as that goes without building it. Raises InvalidRecipe."""
    if not is_plugin_name(asked.name) or "@" in asked.name:
        raise InvalidRecipe(
            f"{asked.name[:100]!r} is not a name for a recipe.",
            hint="Lower-case words with a slash, such as vision/crop-net; the libraries' own first words are taken.",
        )
    for what in (asked.replace, asked.take, asked.heads, asked.inputs):
        if len(what) > MOST_PARTS:
            raise InvalidRecipe(f"A recipe may name {MOST_PARTS} parts of one kind; this one names {len(what)}.")
    counted = _Counter()
    recipe = Recipe(
        name=asked.name,
        base=asked.base,
        options=asked.options,
        replace={_path(path): _layers(told, path, counted) for path, told in asked.replace.items()},
        children=asked.children,
        prefix=_path(asked.prefix) if asked.prefix else "",
        take={_name(name): _path(path) for name, path in asked.take.items()},
        heads={_path(name): _head(told, name, counted) for name, told in asked.heads.items()},
        outputs=_outputs(asked.outputs),
        inputs={name: _shape(name, shape) for name, shape in asked.inputs.items()},
        summary=asked.summary,
    )
    if twice := recipe.heads.keys() & recipe.take.keys():
        raise InvalidRecipe(f"{min(twice)!r} is a head and a value that is taken.")
    if any(path.startswith(f"{other}.") for path in recipe.replace for other in recipe.replace):
        raise InvalidRecipe("A part is replaced within another one that is replaced.")
    if len(recipe.replace) + len(recipe.heads) + len(recipe.take) + len(recipe.inputs) == 0 and not recipe.composed:
        raise InvalidRecipe("The recipe changes nothing of its base.", hint="Name replace, heads, take or children.")
    return recipe


def _outputs(told: list[str] | dict[str, str]) -> dict[str, str]:
    if isinstance(told, dict):
        return {_name(name): _path(value) for name, value in told.items()}
    named = {_name(name.replace(".", "_")): _path(name) for name in told}
    if len(named) < len(told):
        raise InvalidRecipe("Two outputs have one name.")
    return named


def _path(told: str) -> str:
    if not PATH.fullmatch(told):
        raise InvalidRecipe(f"{told[:100]!r} is no path of a module, such as layer4.1 or classifier.")
    return told


def _name(told: str) -> str:
    if not NAME.fullmatch(told):
        raise InvalidRecipe(f"{told[:100]!r} is no name of a value: letters, digits and _.")
    return told


def _shape(name: str, shape: tuple[int | str, ...]) -> tuple[int | str, ...]:
    if not 1 <= len(shape) <= 8 or any(isinstance(size, int) and not 1 <= size <= 65_536 for size in shape):
        raise InvalidRecipe(f"The shape of input {name[:100]!r} has 1 to 8 sizes from 1 to 65536, or names of axes.")
    return shape


class _Counter:
    """Layers of one recipe so far."""

    def __init__(self) -> None:
        self._count = 0

    def add(self) -> None:
        self._count += 1
        if self._count > MOST_LAYERS:
            raise InvalidRecipe(f"A recipe may have {MOST_LAYERS} layers.")


def _head(told: Any, name: str, counted: _Counter) -> Head:
    if not isinstance(told, dict) or "layers" not in told:
        return Head(_layers(told, name, counted))
    if told.keys() - {"layers", "input"}:
        raise InvalidRecipe(f"{name}: a head has layers and input.")
    given = told.get("input", [])
    given = [given] if isinstance(given, str) else given
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given) or len(given) > MOST_PARTS:
        raise InvalidRecipe(f"{name}: input is the name of a value, or a list of such.")
    return Head(_layers(told["layers"], name, counted), tuple(map(_path, given)))


def _layers(told: Any, where: str, counted: _Counter, depth: int = 0) -> Layers:
    if depth > MOST_DEPTH:
        raise InvalidRecipe(f"{where[:100]}: lists stand within each other more than {MOST_DEPTH} times.")
    if not isinstance(told, list):
        return _layer(told, where, counted)
    members: dict[str, Layers] = {}
    for at, one in enumerate(told):
        name, layers = _member(one, at, where)
        if name in members:
            raise InvalidRecipe(f"{where}: two layers are called {name!r}.")
        members[name] = _layers(layers, f"{where}.{name}", counted, depth + 1)
    return Sequence(tuple(members.items()))


def _member(told: Any, at: int, where: str) -> tuple[str, Any]:
    """The name of a member of a list, and the member."""
    if not isinstance(told, dict) or "name" not in told:
        return str(at), told
    name, rest = told["name"], {key: value for key, value in told.items() if key != "name"}
    if not isinstance(name, str) or not re.fullmatch(SEGMENT, name):
        raise InvalidRecipe(f"{where}.{at}: a layer's name is letters, digits and _.")
    return name, rest["layers"] if rest.keys() == {"layers"} else rest


def _layer(told: Any, where: str, counted: _Counter) -> Layer:
    counted.add()
    told = {told: {}} if isinstance(told, str) else told
    if not isinstance(told, dict) or len(told) != 1:
        raise InvalidRecipe(
            f'{where[:200]}: a layer is an object of one member, such as {{"Linear": {{"out_features": 37}}}}.'
        )
    ((kind, arguments),) = told.items()
    if kind not in LAYERS:
        near = get_close_matches(kind[:100], LAYERS, n=1)
        raise InvalidRecipe(
            f"{where[:200]}: {kind[:100]!r} is no layer that a recipe may have.",
            hint=f"{f'Did you mean {near[0]}? ' if near else ''}Layers: {', '.join(sorted(LAYERS))}.",
        )
    if not isinstance(arguments, dict):
        raise InvalidRecipe(f"{where[:200]}: the arguments of {kind} are an object.")
    try:
        check_options(f"{where[:200]}: {kind}", LAYERS[kind].schema, arguments)
    except InvalidOptions as error:
        raise InvalidRecipe(error.detail, hint=error.told_hint) from None
    return Layer(kind, arguments)


def _named(told: Any, name: str | None) -> Any:
    """A layer's JSON with its own name beside it."""
    if name is None:
        return told
    if isinstance(told, list):
        return {"layers": told, "name": name}
    return {**({told: {}} if isinstance(told, str) else told), "name": name}
