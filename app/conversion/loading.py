"""Putting an uploaded state dict into an architecture, without copying it where that can be avoided."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from app.architectures.calling import EagerModel
from app.architectures.construction import replace_tensors
from app.architectures.named_tensors import named_tensors, tied_groups
from app.architectures.registry import Registry
from app.conversion.checkpoint import OpenedCheckpoint
from app.conversion.checkpoint.names import shown
from app.conversion.drawn import beside_state, drawn
from app.conversion.influence import acting
from app.conversion.load_attempts import Attempt, Place, place_of, read_into
from app.conversion.proposals import advice, fit
from app.domain.architecture import Signature
from app.domain.checkpoint import LoadReport, ParameterReport, TensorInfo
from app.domain.conversion import Stage
from app.domain.errors import KeyMismatch, MemoryEstimateExceeded
from app.processes import memory_left

_NAMED = 3
"""Tensors that a sentence names."""
LEFT_OUT = " (left out)"
"""Ends the name of an uploaded tensor that was left out, where the module has another tensor of its name."""

_REGISTER = (
    "The architecture draws them at random when it is built: register them as buffers, and save them with the weights."
)


@dataclass(frozen=True)
class LoadedModule:
    module: nn.Module
    """eval(), on CPU; tensors are the checkpoint's own memory where dtype and layout agree."""
    uploaded: dict[str, Tensor]
    """What the upload brought, under the names that the module gives it, with its own dtypes; what was left out too."""
    report: LoadReport
    parameters: ParameterReport


def load_module(
    registry: Registry,
    name: str,
    options: Mapping[str, Any],
    opened: OpenedCheckpoint,
    *,
    strict: bool,
    prefix: str | None,
    allow_missing: Sequence[str] = (),
    signature: Signature | None = None,
) -> LoadedModule:
    """Build the architecture and load the checkpoint into it.

    The keys may be the architecture's, or what wrappers, the architecture's library or the module's own load hooks make
    of them; whatever moved, ``uploaded`` has it under the module's names. Tensors of another float width are cast to
    the architecture's dtype. With ``strict`` off, and for keys that ``allow_missing`` (glob patterns) admits, what the
    checkpoint lacks keeps a seeded initial value, and every such key is listed in the report; ``unloaded_keys`` are
    those that act on the outputs of the ``signature`` (all, where none is given) and that ``allow_missing`` lacks,
    among them the tensors that the architecture draws at random and keeps outside of its state dict.

    Raises KeyMismatch (with ``missing_keys``, ``unexpected_keys``, ``shape_mismatches``) and what Registry.build does.
    """
    place = place_of(registry, name, options)
    kept = {path: tensor.clone() for path, tensor in beside_state(place.module).items()}
    allowed = partial(_matches, patterns=tuple(allow_missing))
    attempt = read_into(place, opened, prefix, allowed)
    refused = attempt.accounted.changed or attempt.raised or (strict and not attempt.complete(allowed))
    if refused or (attempt.usable == 0 and any(target.is_floating_point() for target in place.targets.values())):
        raise _refusal(place, attempt, opened)
    random = drawn(kept, lambda seed: registry.build(name, options, seed=seed))
    if attempt.missing or attempt.mismatched:
        _refuse_beyond_memory(place)
        _initialise(place.module, registry.build(name, options, initialised=True))
    _finish(place)
    held = {**place.module.state_dict(keep_vars=True), **beside_state(place.module)}
    wanted = (key for key in (*attempt.missing, *attempt.mismatched, *random) if not allowed(key))
    lacking = {key: held[key] for key in wanted if key in held}
    repair = attempt.reading.repair(attempt.named)
    left_out = _left_out(attempt, opened.state_dict)
    unloaded = acting(EagerModel(place.module, signature), lacking) if signature and lacking else tuple(lacking)
    report = LoadReport(
        strict=strict,
        nesting=opened.inspection.nesting,
        repair=repair,
        missing_keys=attempt.missing,
        unexpected_keys=attempt.unexpected,
        shape_mismatches=tuple(attempt.mismatched.values()),
        ignored_keys=tuple(left_out),
        conversions=attempt.accounted.conversions,
        unloaded_keys=unloaded,
        unknown_options=registry.unknown_options(name, options),
        hint=_hint(place, attempt, opened) if set(unloaded) - set(random) else _REGISTER if unloaded else None,
    )
    uploaded = {**attempt.accounted.tensors, **left_out}
    return LoadedModule(place.module, uploaded, report, describe_parameters(place.module))


def describe_parameters(module: nn.Module) -> ParameterReport:
    """Totals over distinct parameters (a tied one counts once), and every tensor of the module by name."""
    parameters, buffers, held = list(module.parameters()), list(module.buffers()), named_tensors(module)
    first = {name: group[0] for group in tied_groups(held) for name in group[1:]}
    tensors = (
        TensorInfo(
            name=name,
            shape=tuple(tensor.shape),
            dtype=str(tensor.dtype).removeprefix("torch."),
            bytes=tensor.numel() * tensor.element_size(),
            trainable=isinstance(tensor, nn.Parameter) and tensor.requires_grad,
            tied_to=first.get(name),
        )
        for name, tensor in held.items()
    )
    return ParameterReport(
        total=sum(parameter.numel() for parameter in parameters),
        trainable=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        buffers=sum(buffer.numel() for buffer in buffers),
        bytes=sum(tensor.numel() * tensor.element_size() for tensor in (*parameters, *buffers)),
        tensors=tuple(tensors),
    )


def _refuse_beyond_memory(place: Place) -> None:
    """Raises MemoryEstimateExceeded where the architecture's initial values alone are more than this process may have:
    it was admitted by what the file holds, and these options ask for a module of another size."""
    wanted = sum(target.numel() * target.element_size() for target in place.targets.values())
    left = memory_left()
    if left is not None and wanted > left:
        raise MemoryEstimateExceeded(
            f"With these options the tensors of {place.name} have {wanted:,} bytes, of which the file brings a part; "
            f"the conversion may use {left:,} more.",
            stage=Stage.load.value,
            hint="Check the options: they should be those that the weights were trained with.",
            estimated_bytes=wanted,
            budget_bytes=left,
        )


def _initialise(module: nn.Module, initialised: nn.Module) -> None:
    """Give what is still without data the value that the freshly initialised module has there."""
    values = initialised.state_dict()
    lacking = {key: values[key] for key, value in module.state_dict().items() if value.is_meta}
    module.load_state_dict(lacking, strict=False, assign=True)


def _finish(place: Place) -> None:
    """Tie what is tied, and bring every tensor into the architecture's dtype and layout. Then eval().

    load_state_dict(assign=True) put a new object under every name; whatever else holds the old one gets it as well.
    """
    loaded = place.module.state_dict(keep_vars=True)
    first = {name: group[0] for group in place.groups for name in group}
    finished: dict[str, Tensor] = {}
    others: dict[int, Tensor] = {}
    for key, target in place.targets.items():
        name = first.get(key, key)
        if name not in finished:
            finished[name] = _as_target(loaded.get(name, loaded[key]), target)
        others[id(target)] = others[id(loaded[key])] = finished[name]
    replace_tensors(place.module, others)
    place.module.eval()


def _as_target(tensor: Tensor, target: Tensor) -> Tensor:
    """The tensor in the architecture's dtype and layout; the object itself if nothing has to change."""
    value = tensor.detach()
    if tensor.dtype != target.dtype:
        value = value.to(target.dtype)
    if not value.is_contiguous():
        value = value.contiguous()
    if value.data_ptr() % max(value.element_size(), 1):
        value = value.clone(memory_format=torch.contiguous_format)
    if value.dtype == tensor.dtype and value.data_ptr() == tensor.data_ptr():
        return tensor
    return nn.Parameter(value, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else value


def _left_out(attempt: Attempt, uploaded: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Uploaded tensors that the module does not hold, by the reading's names; outside of the prefix by their own."""
    outside = {key: tensor for key, tensor in uploaded.items() if key not in attempt.named}
    inside = {name: attempt.tensors[name] for name in attempt.accounted.unplaced}
    placed = attempt.accounted.tensors
    return {(name if name not in placed else name + LEFT_OUT): tensor for name, tensor in {**outside, **inside}.items()}


def _matches(key: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def _refusal(place: Place, attempt: Attempt, opened: OpenedCheckpoint) -> KeyMismatch:
    kinds = (
        (attempt.missing, "missing"),
        (attempt.unexpected, "unexpected"),
        (tuple(attempt.mismatched.values()), "of another shape or kind"),
        (attempt.accounted.changed, "that the architecture's own loading would change"),
    )
    said = "; ".join(_told(several, words) for several, words in kinds if several) or "none of them usable"
    if attempt.raised:
        said = f"the architecture's own loading raised {attempt.raised}"
    if attempt.reading.prefix:
        said += f" (read without the prefix {attempt.reading.prefix!r})"
    return KeyMismatch(
        f"Of the {len(place.targets)} tensors of {place.name} and the {len(opened.state_dict)} uploaded: {said}.",
        hint=_hint(place, attempt, opened),
        missing_keys=attempt.missing,
        unexpected_keys=attempt.unexpected,
        shape_mismatches=tuple(attempt.mismatched.values()),
    )


def _told(several: Sequence[str], words: str) -> str:
    """How many they are, and the first ones: 2 missing (fc.weight, fc.bias)."""
    rest = ", ..." if len(several) > _NAMED else ""
    return f"{len(several)} {words} ({', '.join(map(shown, several[:_NAMED]))}{rest})"


def _hint(place: Place, attempt: Attempt, opened: OpenedCheckpoint) -> str:
    shapes = {key: tensor.shape for key, tensor in (attempt.converted or attempt.tensors or opened.state_dict).items()}
    if attempt.mismatched and all(shapes.get(key) == value.shape for key, value in place.targets.items()):
        return (
            "Every shape fits; save these tensors in the architecture's dtype. Integers in the place of weights are "
            "those of a quantized model: dequantize them."
        )
    plain = fit(place.options, place.shapes, shapes, place.optional)
    return advice(place.registry, place.name, plain, shapes, place.optional)
