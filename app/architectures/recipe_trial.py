"""Checking a recipe: it is built without data and run on tensors without data, and what each layer is given shows.

Nothing has values here: parameters and activations are fake tensors, which have shapes and dtypes alone.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from app.architectures import construction
from app.architectures.calling import EagerModel, bind
from app.architectures.entry import Entry
from app.architectures.module_state import state_kept
from app.architectures.recipes import assembled, base_options, layer_module, output_names, replace_inputs
from app.architectures.sample import sample_inputs
from app.domain.architecture import OutputSpec, Signature
from app.domain.errors import InvalidRecipe, RecastError
from app.domain.recipe import LAYERS, CheckedRecipe, Head, Layer, Layers, Recipe, Sequence

BATCH = "batch"
BATCHES = 2, 3
"""With which a recipe is run; a size that is the batch's in both is told as such."""
LONGEST = 400


def checked(recipe: Recipe, base: Entry) -> CheckedRecipe:
    """The recipe with all sizes. Raises InvalidRecipe, InvalidOptions, BuildFailed."""
    options = base_options(recipe, base)
    own = base.signature(options)
    signature = replace_inputs(recipe, own)
    places: dict[int, str] = {}
    found: dict[int, Layer] = {}

    def make(layer: Layer, where: str) -> nn.Module:
        places[id(layer)] = where
        return _Trial(layer, where, lambda sized: found.setdefault(id(layer), sized))

    module = construction.skeleton(lambda: assembled(recipe, base.construct(options), own, make))
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        construction.replace_tensors(module, _without_data(module))
    batches = BATCHES if _has_batch(signature) else BATCHES[:1]
    runs = [_run(module, mode, signature, batch) for batch in batches]
    if idle := [where for layer, where in places.items() if layer not in found]:
        raise InvalidRecipe(f"{idle[0]} is never run, so its sizes cannot be found and its weights do nothing.")
    sized = _with_sizes(recipe, found)
    names = output_names(recipe, own, len(runs[0]))
    return CheckedRecipe(
        recipe=sized.told(),
        digest=recipe.digest,
        outputs=tuple(_outputs(names, runs, fixed=len(signature.axes) <= 1)),
    )


class _Trial(nn.Module):
    """Stands for a layer of which a size is not known until it is given something."""

    def __init__(self, layer: Layer, where: str, tell: Callable[[Layer], Layer]) -> None:
        """``tell`` is told of the layer with its sizes, and gives it as it was told of first."""
        super().__init__()
        self.layer, self.where, self.tell = layer, where, tell

    def forward(self, given: Tensor) -> Tensor:
        try:
            result: Tensor = layer_module(self.tell(_sized(self.layer, given))).eval()(given)
        except RecastError:
            raise
        except Exception as error:
            shape = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
            raise InvalidRecipe(f"{self.where}: {self.layer.kind} is given {shape}: {_words(error)}") from error
        return result


def _sized(layer: Layer, given: Tensor) -> Layer:
    kind = LAYERS[layer.kind]
    if kind.inferred is None or kind.inferred in layer.arguments:
        return layer
    return replace(layer, arguments={**layer.arguments, kind.inferred: int(given.shape[kind.axis])})


def _has_batch(signature: Signature) -> bool:
    return any(axis.name == BATCH for axis in signature.axes)


def _run(module: nn.Module, mode: FakeTensorMode, signature: Signature, batch: int) -> list[Tensor]:
    """The outputs of a forward on tensors without data. Raises InvalidRecipe."""
    sizes = {axis.name: batch if axis.name == BATCH else axis.sample for axis in signature.axes}
    inputs = sample_inputs(signature, sizes, torch.Generator().manual_seed(0))
    fake = {name: mode.from_tensor(tensor) for name, tensor in inputs.items()}
    args, kwargs = bind(EagerModel(module, signature), fake)
    with torch.random.fork_rng(devices=[]), state_kept(module), torch.no_grad(), mode:
        try:
            return list(_tensors(module(*args, **kwargs)))
        except RecastError:
            raise
        except Exception as error:
            raise InvalidRecipe(f"The module cannot be run on its inputs: {_words(error)}") from error


def _without_data(module: nn.Module) -> dict[int, Tensor]:
    """By ``id``, for each tensor of the state dict one on the CPU of its shape; called within the fake mode."""
    made: dict[int, Tensor] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_meta:
            empty = torch.empty(tensor.shape, dtype=tensor.dtype)
            made[id(tensor)] = nn.Parameter(empty, False) if isinstance(tensor, nn.Parameter) else empty
    return made


def _tensors(result: Any) -> Iterator[Tensor]:
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, Mapping):
        for value in result.values():
            yield from _tensors(value)
    elif isinstance(result, tuple | list):
        for value in result:
            yield from _tensors(value)


def _outputs(names: tuple[str, ...], runs: list[list[Tensor]], *, fixed: bool) -> Iterator[OutputSpec]:
    for at, name in enumerate(names):
        tensors = [run[at] for run in runs]
        dtype = str(tensors[0].dtype).removeprefix("torch.")
        shape = tuple(_axis(sizes) for sizes in zip(*(tensor.shape for tensor in tensors), strict=True))
        yield OutputSpec.model_validate({"name": name, "dtype": dtype, "shape": shape if fixed else None})


def _axis(sizes: tuple[int, ...]) -> int | str:
    return BATCH if sizes == BATCHES else int(sizes[0])


def _with_sizes(recipe: Recipe, found: Mapping[int, Layer]) -> Recipe:
    def sized(layers: Layers) -> Layers:
        if isinstance(layers, Layer):
            return found[id(layers)]
        return Sequence(tuple((name, sized(member)) for name, member in layers.members))

    return replace(
        recipe,
        replace={path: sized(layers) for path, layers in recipe.replace.items()},
        heads={name: Head(sized(head.layers), head.input) for name, head in recipe.heads.items()},
    )


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:LONGEST]}".splitlines()[0]
