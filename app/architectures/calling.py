"""Calling a module by its signature, and naming what it returns.

Results are flattened in the order in which torch's pytree (torch.export, torch.onnx) and TorchScript flatten them:
tuples and lists by position, dictionaries in insertion order, dataclasses by field. None is left out, as the exporters
do.
"""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from app.domain.architecture import InputSpec, Signature
from app.domain.errors import ExportFailed, InvalidRequest

KEYWORD_KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True)
class EagerModel:
    """A module in eager PyTorch, and by which names it takes and gives what."""

    module: nn.Module
    signature: Signature


def bind(model: EagerModel, inputs: Mapping[str, Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of ``module.forward`` for these inputs.

    By keyword when every input name is a parameter of forward, else by position in the signature's order.
    Raises InvalidRequest when an input is missing.
    """
    missing = [spec.name for spec in model.signature.inputs if spec.name not in inputs]
    if missing:
        raise InvalidRequest(f"No value for input {', '.join(missing)}.")
    values = [_argument(spec, inputs[spec.name]) for spec in model.signature.inputs]
    names = [spec.argument or spec.name for spec in model.signature.inputs]
    if takes_by_keyword(model.module, names):
        return (), dict(zip(names, values, strict=True))
    return tuple(values), {}


def call(model: EagerModel, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The module's outputs by name, in order, and copies of them: a module may keep, and change, what it gives.

    Inputs are copied likewise: a module may write into what it is given.
    """
    args, kwargs = bind(model, {name: tensor.clone() for name, tensor in inputs.items()})
    with torch.inference_mode():
        return copied(flatten(model.module(*args, **kwargs), model.signature))


def copied(outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Outputs that share no memory with weights, buffers or what else lives on, and carry no gradients."""
    return {name: tensor.detach().clone() for name, tensor in outputs.items()}


def flatten(result: Any, signature: Signature) -> dict[str, Tensor]:
    """Tensors of a module's result by name, in order.

    Names are the signature's outputs where it declares any, else made of the dictionary keys and positions that lead to
    a tensor: "output", "output_0", "logits", "hidden_states_3". Raises ExportFailed for a result that holds something
    other than tensors, or not as many as the signature declares.
    """
    leaves = list(_leaves(result, ()))
    if not signature.outputs:
        return dict(zip(_unique_names(leaves, signature), (tensor for _, tensor in leaves), strict=True))
    if len(leaves) != len(signature.outputs):
        raise ExportFailed(
            f"The module returned {len(leaves)} tensors; its signature declares {len(signature.outputs)}."
        )
    return {spec.name: tensor for spec, (_, tensor) in zip(signature.outputs, leaves, strict=True)}


def _argument(spec: InputSpec, tensor: Tensor) -> Tensor | list[Tensor]:
    return [tensor] if spec.in_list else tensor


def takes_by_keyword(module: nn.Module, names: list[str]) -> bool:
    """Whether all names are parameters of the module's forward."""
    if isinstance(module, torch.jit.ScriptModule):
        arguments = {argument.name for argument in module._c._get_method("forward").schema.arguments}
        return arguments.issuperset(names)
    parameters = inspect.signature(module.forward).parameters
    return all(name in parameters and parameters[name].kind in KEYWORD_KINDS for name in names)


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    if value is None:
        return
    if isinstance(value, Tensor):
        yield path, value
        return
    for key, part in _parts(value, path):
        yield from _leaves(part, (*path, key))


def _parts(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((str(key), part) for key, part in value.items())
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        yield from zip(value._fields, value, strict=True)
    elif isinstance(value, (tuple, list)):
        yield from ((str(position), part) for position, part in enumerate(value))
    elif is_dataclass(value) and not isinstance(value, type):
        yield from ((field.name, getattr(value, field.name)) for field in fields(value))
    else:
        place = f" at {'.'.join(path)}" if path else ""
        raise ExportFailed(
            f"The module returns a {type(value).__name__}{place}; only tensors can be outputs of a graph.",
            hint="Return tensors, or tuples, lists, dictionaries or dataclasses of tensors.",
        )


def _unique_names(leaves: list[tuple[tuple[str, ...], Tensor]], signature: Signature) -> list[str]:
    taken = {spec.name for spec in signature.inputs}  # in a graph, an input and an output cannot share a name
    names: list[str] = []
    for path, _ in leaves:
        name = base = _name(path)
        number = 1
        while name in taken:
            name, number = f"{base}_out{number if number > 1 else ''}", number + 1
        taken.add(name)
        names.append(name)
    return names


def _name(path: tuple[str, ...]) -> str:
    joined = "_".join(path)
    return f"output_{joined}".rstrip("_") if not path or path[0].isdigit() else joined
