"""Putting an uploaded state dict into an architecture, without copying it where that can be avoided."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from app.architectures.registry import Registry
from app.conversion.checkpoint import OpenedCheckpoint
from app.conversion.key_repair import Expected, common_segment, repair_keys, strip
from app.conversion.ties import fill_twins, tie, tied_names
from app.domain.checkpoint import LoadReport, ParameterReport, Repair, TensorInfo
from app.domain.errors import KeyMismatch

COUNTER = "num_batches_tracked"
"""BatchNorm's counter of training steps. Nothing in eval mode reads it, and torch itself lets old files omit it."""


@dataclass(frozen=True)
class LoadedModule:
    module: nn.Module
    """eval(), on CPU; tensors are the checkpoint's own memory where dtype and layout agree."""
    uploaded: dict[str, torch.Tensor]
    """The state dict after unwrapping and key repair, with its own dtypes, ignored keys included."""
    report: LoadReport
    parameters: ParameterReport


@dataclass(frozen=True)
class _Fit:
    """How uploaded keys and expected keys meet."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: Mapping[str, str]
    """Key to words, for tensors whose shape or kind of dtype differs."""

    @property
    def exact(self) -> bool:
        return not (self.missing or self.unexpected or self.mismatched)


def load_module(
    registry: Registry,
    name: str,
    options: Mapping[str, Any],
    opened: OpenedCheckpoint,
    *,
    strict: bool,
    prefix: str | None,
) -> LoadedModule:
    """Build the architecture and load the checkpoint into it.

    Tensors of another float width are cast to the architecture's dtype. With ``strict`` off, what the checkpoint lacks
    keeps a seeded initial value, and every such key is listed in the report.

    Raises KeyMismatch (with ``missing_keys``, ``unexpected_keys``, ``shape_mismatches``) and what Registry.build does.
    """
    module = registry.build(name, options)
    groups = tied_names(module)
    targets = module.state_dict()
    expected = Expected(
        {key: value.shape for key, value in targets.items() if isinstance(value, torch.Tensor)},
        frozenset(key for key in targets if key.endswith(COUNTER)) | {twin for group in groups for twin in group[1:]},
    )
    uploaded, repair = repair_keys(opened.state_dict, expected, prefix=prefix, strict=strict)
    mismatched = _mismatches(uploaded, targets)
    usable = {key: _as_target(value, targets.get(key)) for key, value in uploaded.items() if key not in mismatched}
    versions = _versions(opened.versions, repair)
    missing, unexpected = _assign(module, fill_twins(usable, groups), versions)
    fit = _Fit(tuple(key for key in missing if key not in mismatched), unexpected, mismatched)
    if not fit.exact and (strict or not set(uploaded) & set(targets)):
        raise _refusal(fit, uploaded, expected, name)
    if fit.missing or mismatched:
        _initialise(module, registry.build(name, options, initialised=True))
    tie(module, groups)
    module.eval()
    report = LoadReport(
        strict=strict,
        nesting=opened.inspection.nesting,
        repair=repair,
        missing_keys=fit.missing,
        unexpected_keys=unexpected,
        shape_mismatches=tuple(mismatched.values()),
        ignored_keys=tuple(key for key in uploaded if key in mismatched or key in unexpected),
    )
    return LoadedModule(module, uploaded, report, describe_parameters(module))


def describe_parameters(module: nn.Module) -> ParameterReport:
    """Totals over distinct parameters (a tied one counts once), and every tensor of the module by name."""
    parameters = list(module.parameters())
    buffers = list(module.buffers())
    first: dict[int, str] = {}
    tensors = []
    for trainable, named in (
        (True, module.named_parameters(remove_duplicate=False)),
        (False, module.named_buffers(remove_duplicate=False)),
    ):
        for name, tensor in named:
            original = first.setdefault(id(tensor), name)
            tensors.append(
                TensorInfo(
                    name=name,
                    shape=tuple(tensor.shape),
                    dtype=str(tensor.dtype).removeprefix("torch."),
                    bytes=tensor.numel() * tensor.element_size(),
                    trainable=trainable and tensor.requires_grad,
                    tied_to=None if original == name else original,
                )
            )
    return ParameterReport(
        total=sum(parameter.numel() for parameter in parameters),
        trainable=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        buffers=sum(buffer.numel() for buffer in buffers),
        bytes=sum(tensor.numel() * tensor.element_size() for tensor in (*parameters, *buffers)),
        tensors=tuple(tensors),
    )


def _mismatches(uploaded: Mapping[str, torch.Tensor], targets: Mapping[str, Any]) -> dict[str, str]:
    words = {}
    for key, tensor in uploaded.items():
        target = targets.get(key)
        if not isinstance(target, torch.Tensor):
            continue
        if tensor.shape != target.shape and not (target.ndim == 0 and tensor.shape == (1,)):
            words[key] = f"{key}: checkpoint {tuple(tensor.shape)}, architecture {tuple(target.shape)}"
        elif _kind(tensor.dtype) != _kind(target.dtype):
            words[key] = f"{key}: checkpoint {tensor.dtype}, architecture {target.dtype}"
    return words


def _kind(dtype: torch.dtype) -> str:
    """Dtypes of one kind may be cast into each other without changing what the tensor means."""
    if dtype.is_complex:
        return "complex"
    return "float" if dtype.is_floating_point else "integer"


def _as_target(tensor: torch.Tensor, target: object) -> torch.Tensor:
    """The tensor in the architecture's dtype and layout; its own memory if nothing has to change."""
    if not isinstance(target, torch.Tensor):
        return tensor
    if tensor.dtype != target.dtype:
        return tensor.to(target.dtype)
    aligned = tensor.data_ptr() % max(tensor.element_size(), 1) == 0
    return tensor.contiguous() if aligned else tensor.clone(memory_format=torch.contiguous_format)


def _versions(versions: Mapping[str, Any], repair: Repair | None) -> dict[str, Any]:
    """Module versions under the names after key repair: torch's modules read old layouts by them."""
    prefix = repair.stripped_prefix if repair else ""
    return {
        path.removeprefix(prefix): version
        for path, version in versions.items()
        if isinstance(path, str) and isinstance(version, dict) and (path + ".").startswith(prefix)
    }


def _assign(
    module: nn.Module, tensors: Mapping[str, torch.Tensor], versions: dict[str, Any]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """load_state_dict, so that the module's own hooks run. Returns the keys it found missing and unexpected."""
    state_dict: OrderedDict[str, torch.Tensor] = OrderedDict(tensors)
    for key, value in module.state_dict().items():
        if key.endswith(COUNTER) and key not in state_dict:
            state_dict[key] = torch.zeros(value.shape, dtype=value.dtype)
    if versions:
        state_dict._metadata = versions  # type: ignore[attr-defined]
    try:
        result = module.load_state_dict(state_dict, strict=False, assign=True)
    except RuntimeError as error:
        raise KeyMismatch(str(error).splitlines()[-1].strip(), shape_mismatches=[str(error)[:2000]]) from error
    return tuple(result.missing_keys), tuple(key for key in result.unexpected_keys if key in tensors)


def _initialise(module: nn.Module, initialised: nn.Module) -> None:
    """Give what is still without data the value that the freshly initialised module has there."""
    values = initialised.state_dict()
    lacking = {key: values[key] for key, value in module.state_dict().items() if value.is_meta}
    module.load_state_dict(lacking, strict=False, assign=True)


def _refusal(fit: _Fit, uploaded: Mapping[str, torch.Tensor], expected: Expected, name: str) -> KeyMismatch:
    counts = (
        (len(fit.missing), "missing"),
        (len(fit.unexpected), "unexpected"),
        (len(fit.mismatched), "of another shape or kind"),
    )
    said = ", ".join(f"{count} {words}" for count, words in counts if count)
    return KeyMismatch(
        f"Of the {len(expected.shapes)} tensors of {name} and the {len(uploaded)} uploaded: {said}.",
        hint=_advice(uploaded, expected),
        missing_keys=fit.missing,
        unexpected_keys=fit.unexpected,
        shape_mismatches=tuple(fit.mismatched.values()),
    )


def _advice(uploaded: Mapping[str, torch.Tensor], expected: Expected) -> str:
    segment = common_segment(uploaded)
    stripped = strip(uploaded, segment) if segment else None
    if stripped and any(key in expected.shapes for key in stripped):
        fitting = sum(expected.shapes.get(key) == tensor.shape for key, tensor in stripped.items())
        return f"Every key starts with {segment!r}; with prefix={segment!r} {fitting} of {len(uploaded)} would fit."
    return (
        "Check the architecture's name and options (such as num_classes). strict=false converts what fits and lists "
        "the rest in the report."
    )
