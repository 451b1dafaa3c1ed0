"""Slots: the places in a template that uploaded tensors fill, and the strict check that they fit."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from app.domain.errors import LISTED, TemplateMismatch
from app.targets.templating.tensor_bytes import dtype_name


@dataclass(frozen=True)
class TensorForm:
    """Shape and dtype (torch's name without its prefix) that a tensor must have."""

    dtype: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, tensor: Tensor) -> Self:
        return cls(dtype_name(tensor.dtype), tuple(tensor.shape))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        return cls(value["dtype"], tuple(value["shape"]))

    def to_json(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "shape": list(self.shape)}

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


@dataclass(frozen=True)
class WeightTable:
    """Every key of the architecture's state dict, and what the template does with it.

    ``used`` reach the artifact. ``tied`` maps a key to the used key whose parameter it shares. ``unreached`` are read
    by nothing that the outputs depend on (num_batches_tracked, auxiliary heads), so they are left out.
    """

    used: Mapping[str, TensorForm]
    tied: Mapping[str, str]
    unreached: Mapping[str, TensorForm]

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        def forms(name: str) -> dict[str, TensorForm]:
            return {key: TensorForm.from_json(form) for key, form in value[name].items()}

        return cls(forms("used"), dict(value["tied"]), forms("unreached"))

    def to_json(self) -> dict[str, Any]:
        return {
            "used": {key: form.to_json() for key, form in self.used.items()},
            "tied": dict(self.tied),
            "unreached": {key: form.to_json() for key, form in self.unreached.items()},
        }


def state_forms(module: torch.nn.Module) -> tuple[dict[str, TensorForm], dict[str, list[str]]]:
    """Form of every tensor of the state dict, and the groups of keys that name one and the same parameter or buffer.

    A group is listed under each of its keys.
    """
    forms: dict[str, TensorForm] = {}
    groups: dict[int, list[str]] = {}
    for key, tensor in module.state_dict(keep_vars=True).items():
        if not isinstance(tensor, Tensor):  # extra state, which no artifact can carry
            continue
        forms[key] = TensorForm.of(tensor)
        groups.setdefault(id(tensor), []).append(key)
    return forms, {key: group for group in groups.values() for key in group}


def separate_memory(module: torch.nn.Module) -> None:
    """Give every tensor memory of its own, laid out in rows: one record for each, whatever file the weights are from.

    Tensors of a checkpoint may lie in one storage; those of tied parameters are one tensor and stay one. The captured
    module shares its tensors with this one.
    """
    tensors = {id(t): t for t in module.state_dict(keep_vars=True).values() if isinstance(t, Tensor)}
    shared = Counter(tensor.untyped_storage().data_ptr() for tensor in tensors.values())
    for tensor in tensors.values():
        storage = tensor.untyped_storage()
        if shared[storage.data_ptr()] > 1 or storage.nbytes() != tensor.nbytes or not tensor.is_contiguous():
            tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)


def check_fit(table: WeightTable, tensors: Mapping[str, Tensor]) -> None:
    """Raise TemplateMismatch unless ``tensors`` fill every slot exactly.

    Every used and tied key must be there with its shape and dtype, dense and on the CPU; tied keys must hold the same
    bits; a key that the architecture does not have is refused. Unreached keys may be absent.
    """
    forms = {**table.unreached, **table.used, **{key: table.used[first] for key, first in table.tied.items()}}
    wanted = table.used.keys() | table.tied.keys()
    missing = sorted(wanted - tensors.keys())
    unexpected = sorted(tensors.keys() - forms.keys())
    misfits = [
        f"{key}: template has {forms[key]}, checkpoint has {_describe(tensor)}"
        for key, tensor in tensors.items()
        if key in forms and not _fits(tensor, forms[key])
    ]
    if missing or unexpected or misfits:
        raise TemplateMismatch(
            _sentence(missing, unexpected, misfits),
            missing_keys=missing,
            unexpected_keys=unexpected,
            shape_mismatches=misfits,
        )
    untied = sorted(key for key, first in table.tied.items() if not _same_bits(tensors[key], tensors[first]))
    if untied:
        raise TemplateMismatch(
            "The architecture ties these tensors, the checkpoint holds different values: "
            + ", ".join(f"{key} and {table.tied[key]}" for key in untied[:LISTED]),
            untied=untied,
        )


def _fits(tensor: Tensor, form: TensorForm) -> bool:
    return TensorForm.of(tensor) == form and tensor.layout == torch.strided and tensor.device.type == "cpu"


def _describe(tensor: Tensor) -> str:
    where = "" if tensor.device.type == "cpu" else f" on {tensor.device.type}"
    layout = "" if tensor.layout == torch.strided else f" {tensor.layout}"
    return f"{TensorForm.of(tensor)}{layout}{where}"


def _same_bits(one: Tensor, other: Tensor) -> bool:
    if one.data_ptr() == other.data_ptr() and one.stride() == other.stride():
        return True
    return torch.equal(one.contiguous().view(-1).view(torch.uint8), other.contiguous().view(-1).view(torch.uint8))


def _sentence(missing: list[str], unexpected: list[str], misfits: list[str]) -> str:
    parts = [
        f"{len(names)} {what}: {', '.join(names[:LISTED])}"
        for names, what in ((missing, "missing"), (unexpected, "unexpected"), (misfits, "of another form"))
        if names
    ]
    return "The weights do not fill the template's slots. " + "; ".join(parts)
