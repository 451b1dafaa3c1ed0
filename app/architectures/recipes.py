"""Building what a recipe tells (domain/recipe.py): a base with other parts, or with heads beside it.

Where only parts are replaced the base keeps its own forward and its keys. Else the module runs the base, takes the
values of inner parts that are named, and gives them to the heads in their order.
"""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from inspect import Parameter
from inspect import Signature as CallSignature
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from app.architectures.calling import flatten, takes_by_keyword
from app.architectures.entry import Entry, Options, object_schema
from app.domain.architecture import Signature
from app.domain.errors import InvalidRecipe
from app.domain.options import check_options, complete_options
from app.domain.recipe import CheckedRecipe, Layer, Layers, Recipe, RecipeRequest, recipe_of, source_digest

BODY = "body"
"""What the values are called that a base gives of which only children are kept."""

Make = Callable[[Layer, str], nn.Module]
"""Makes the module of a layer; the text says where it stands."""


class Normalize(nn.Module):
    """Vectors of length 1."""

    def __init__(self, norm: float = 2.0, dim: int = 1, eps: float = 1e-12) -> None:
        super().__init__()
        self.norm, self.dim, self.eps = norm, dim, eps

    def forward(self, input: Tensor) -> Tensor:
        return functional.normalize(input, self.norm, self.dim, self.eps)


class AdaptiveConcatPool2d(nn.Module):
    """fastai's pooling: the maxima, then the means (fastai/layers.py)."""

    def __init__(self, output_size: int | list[int] = 1) -> None:
        super().__init__()
        self.ap = nn.AdaptiveAvgPool2d(_size(output_size))
        self.mp = nn.AdaptiveMaxPool2d(_size(output_size))

    def forward(self, input: Tensor) -> Tensor:
        return torch.cat([self.mp(input), self.ap(input)], 1)


class Mean(nn.Module):
    """The mean over axes."""

    def __init__(self, dims: list[int], keepdim: bool = False) -> None:
        super().__init__()
        self.dims, self.keepdim = tuple(dims), keepdim

    def forward(self, input: Tensor) -> Tensor:
        return input.mean(self.dims, self.keepdim)


class Select(nn.Module):
    """One place of an axis, which is then gone."""

    def __init__(self, dim: int, index: int) -> None:
        super().__init__()
        self.dim, self.index = dim, index

    def forward(self, input: Tensor) -> Tensor:
        return input.select(self.dim, self.index)


class LSTM(nn.LSTM):
    """The states of the last layer alone, without those to go on from."""

    def forward(self, input: Tensor) -> Tensor:  # type: ignore[override]
        states: Tensor = super().forward(input)[0]
        return states


class GRU(nn.GRU):
    """The states of the last layer alone, without that to go on from."""

    def forward(self, input: Tensor) -> Tensor:  # type: ignore[override]
        states: Tensor = super().forward(input)[0]
        return states


OWN: Mapping[str, type[nn.Module]] = {
    kind.__name__: kind for kind in (Normalize, AdaptiveConcatPool2d, Mean, Select, LSTM, GRU)
}


def entry_of(checked: CheckedRecipe, base: Entry) -> Entry:
    """The recipe as an entry of the registry. It has no options: those of its base stand in the recipe."""
    recipe = recipe_of(RecipeRequest.model_validate(checked.recipe))
    options = base_options(recipe, base)
    declared = replace_inputs(recipe, base.signature(options)).model_copy(update={"outputs": checked.outputs})
    library = base.convert

    def convert(module: nn.Module, _: Options, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        assert library is not None
        return library(module, options, tensors)

    return Entry(
        name=recipe.name,
        family=base.family,
        library=base.library,
        library_version=base.library_version,
        summary=recipe.summary or f"A recipe on {base.name}",
        options_schema=object_schema({}),
        signature=lambda _: declared,
        construct=lambda _: assembled(recipe, base.construct(options), base.signature(options), layer_module),
        targets=base.targets,
        source_digest=source_digest(checked, base.source_digest),
        plugin=base.plugin,
        recipe=checked.digest,
        convert=None if library is None or recipe.prefix or recipe.children is not None else convert,
    )


def base_options(recipe: Recipe, base: Entry) -> Options:
    """The base's options, complete. Raises InvalidOptions."""
    check_options(base.name, base.options_schema, recipe.options)
    return complete_options(base.options_schema, recipe.options)


def replace_inputs(recipe: Recipe, signature: Signature) -> Signature:
    """The base's signature with the shapes of inputs that the recipe tells. Raises InvalidRecipe."""
    names = [spec.name for spec in signature.inputs]
    axes = {axis.name for axis in signature.axes}
    for name, shape in recipe.inputs.items():
        if name not in names:
            raise InvalidRecipe(f"The base has no input {name!r}; its inputs: {', '.join(names)}.")
        unknown = [size for size in shape if isinstance(size, str) and size not in axes]
        if unknown:
            raise InvalidRecipe(f"Input {name!r}: the base has no axis {unknown[0]!r}; it has {', '.join(axes)}.")
    inputs = (
        spec.model_copy(update={"shape": recipe.inputs[spec.name]}) if spec.name in recipe.inputs else spec
        for spec in signature.inputs
    )
    return signature.model_copy(update={"inputs": tuple(inputs)})


def assembled(recipe: Recipe, base: nn.Module, signature: Signature, make: Make) -> nn.Module:
    """The module. ``signature`` is the base's own. Raises InvalidRecipe for what the base does not have."""
    for path, layers in recipe.replace.items():
        _put(_part(base, path.rpartition(".")[0]), path.rpartition(".")[2], _module(layers, path, make), instead=True)
    outputs = tuple(spec.name for spec in signature.outputs)
    if recipe.children is not None:
        base, outputs = nn.Sequential(*list(base.children())[: recipe.children]), (BODY,)
    return _composed(recipe, base, signature, outputs, make) if recipe.composed else base


def _composed(recipe: Recipe, base: nn.Module, signature: Signature, outputs: tuple[str, ...], make: Make) -> nn.Module:
    root = nn.Module() if recipe.prefix else base
    taken: dict[str, Tensor] = {}
    for name, path in recipe.take.items():
        _part(base, path).register_forward_hook(_keeping(taken, name))
    if recipe.prefix:
        _put_deep(root, recipe.prefix, base)
    for name, head in recipe.heads.items():
        _put_deep(root, name, _module(head.layers, name, make))
    names = [spec.argument or spec.name for spec in signature.inputs]
    given_names = names if takes_by_keyword(base, names) else []
    run = _runner(root, base, recipe.prefix)
    named = Signature(inputs=(), outputs=tuple({"name": name} for name in outputs))

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        given = dict(zip(names, args, strict=False)) | kwargs
        taken.clear()
        result = run(self, given) if given_names else run(self, tuple(given[name] for name in names))
        values = flatten(result, named) | taken
        taken.clear()
        first = next(iter(values.values()))
        for name, head in recipe.heads.items():
            inputs = [_value(values, one) for one in head.input] or [first]
            values[name] = _part(self, name)(inputs[0] if len(inputs) == 1 else torch.cat(inputs, 1))
        told = tuple(recipe.outputs.values()) or tuple(recipe.heads) or tuple(recipe.take) or tuple(values)
        found = tuple(_value(values, one) for one in told)
        return found[0] if len(found) == 1 else found

    parameters = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    shown = CallSignature([Parameter("self", Parameter.POSITIONAL_OR_KEYWORD), *parameters])
    forward.__signature__ = shown  # type: ignore[attr-defined]
    root.forward = MethodType(forward, root)
    return root


def _runner(root: nn.Module, base: nn.Module, prefix: str) -> Callable[[nn.Module, Any], Any]:
    """Runs the base within the module that it is given: that may be a copy of this one."""
    if root is not base:
        return lambda self, given: _called(_part(self, prefix), given)
    own = vars(base).get("forward")
    inner = own.__func__ if isinstance(own, MethodType) else type(base).forward
    return lambda self, given: _called(MethodType(inner, self), given)


def _called(run: Callable[..., Any], given: Any) -> Any:
    return run(**given) if isinstance(given, dict) else run(*given)


def _keeping(taken: dict[str, Tensor], name: str) -> Callable[..., None]:
    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if not isinstance(output, Tensor):
            raise InvalidRecipe(f"take: the part for {name!r} gives a {type(output).__name__}, not a tensor.")
        taken[name] = output

    return hook


def _value(values: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in values:
        raise InvalidRecipe(f"There is no value {name!r}; there are {', '.join(values)}.")
    return values[name]


def output_names(recipe: Recipe, base: Signature, count: int) -> tuple[str, ...]:
    """What the outputs are called. Raises InvalidRecipe where the recipe names another number of them."""
    told = tuple(recipe.outputs) or tuple(recipe.heads) or tuple(recipe.take)
    if told and len(told) != count:
        raise InvalidRecipe(f"The module gives {count} outputs; the recipe names {len(told)}.")
    if not told and recipe.children is None and len(base.outputs) == count:
        told = tuple(spec.name for spec in base.outputs)
    names = told or (("output",) if count == 1 else tuple(f"output_{at}" for at in range(count)))
    return tuple(name.replace(".", "_") if name[0].isalpha() else f"output_{name}" for name in names)


def layer_module(layer: Layer, _where: str = "") -> nn.Module:
    """The module of a layer all of whose sizes are told."""
    kind = OWN.get(layer.kind) or getattr(nn, layer.kind)
    made: nn.Module = kind(**{name: _size(value) for name, value in layer.arguments.items()})
    return made


def _size(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _module(layers: Layers, where: str, make: Make) -> nn.Module:
    if isinstance(layers, Layer):
        return make(layers, where)
    if not layers.members:
        return nn.Identity()
    sequence = nn.Sequential()
    for name, member in layers.members:
        sequence.add_module(name, _module(member, f"{where}.{name}", make))
    return sequence


def _part(module: nn.Module, path: str) -> nn.Module:
    found = module
    for segment in path.split(".") if path else ():
        inner = found._modules.get(segment)
        if inner is None:
            raise _no_part(module, path)
        found = inner
    return found


def _no_part(module: nn.Module, path: str) -> InvalidRecipe:
    known = [name for name, _ in module.named_modules() if name]
    near = get_close_matches(path, known, n=3)
    shown = near or [name for name in known if "." not in name][:20]
    return InvalidRecipe(
        f"The base has no part {path!r}.", hint=f"{'Did you mean' if near else 'Parts:'} {', '.join(shown)}."
    )


def _put(parent: nn.Module, name: str, part: nn.Module, *, instead: bool) -> None:
    if instead and parent._modules.get(name) is None:
        raise _no_part(parent, name)
    if not instead and (name in parent._modules or hasattr(parent, name)):
        raise InvalidRecipe(f"There is a part {name!r} already; a head needs another name, or goes into replace.")
    if isinstance(parent, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        parent._modules[name] = part
    else:
        setattr(parent, name, part)


def _put_deep(root: nn.Module, path: str, part: nn.Module) -> None:
    *folders, name = path.split(".")
    for folder in folders:
        if root._modules.get(folder) is None:
            _put(root, folder, nn.Module(), instead=False)
        root = _part(root, folder)
    _put(root, name, part, instead=False)
