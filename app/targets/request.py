"""What an exporter is asked for: a loaded module and its signature after the client's options were applied."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import nn

from app.architectures.calling import EagerModel
from app.architectures.sample import concrete_shape, sample_inputs
from app.domain.architecture import ArchitectureDescription, Axis, InputSpec, OutputSpec, Signature
from app.domain.conversion import CommonOptions
from app.domain.errors import InvalidOptions

Setting = TypeVar("Setting")

SAMPLE_SEED = 0
MAX_SAMPLE_ELEMENTS = 1 << 28
"""Elements of one sample input: 1 GiB in float32."""


@dataclass(frozen=True)
class CheckpointFile:
    """The uploaded file, which an artifact points into. ``name``: under which it shall lie beside the artifact."""

    name: str
    sha256: str
    bytes: int
    offsets: Mapping[str, int]
    """Where the bytes of a tensor begin, little-endian and in rows, by state-dict key; of the others it has none."""


@dataclass(frozen=True)
class ExportRequest(EagerModel):
    """``signature``: inputs, axes and outputs as they shall stand in the artifact."""

    options: CommonOptions
    sample: dict[str, torch.Tensor]
    """Inputs by name at the sample sizes; every dynamic axis has a size of at least 2, so that none is taken for 1."""
    calibration: Sequence[Mapping[str, torch.Tensor]] = ()
    """Further inputs by name, which the client sent."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What the artifact shall say of itself, name to text; no part of a template."""
    checkpoint: CheckpointFile | None = None
    """Where the weights stay; None: the artifact carries them."""


def export_request(module: nn.Module, description: ArchitectureDescription, options: CommonOptions) -> ExportRequest:
    """Apply ``example_shapes``, ``dynamic_axes``, ``input_names`` and ``output_names`` to the architecture's signature.

    In options, inputs go by the architecture's names or by the new ones. Raises InvalidOptions in words.
    """
    signature = requested_signature(description.signature, options)
    for spec in signature.inputs:
        shape = concrete_shape(signature, spec, {})
        if math.prod(shape) > MAX_SAMPLE_ELEMENTS:
            raise InvalidOptions(
                f"Input {spec.name!r} of shape {shape} has {math.prod(shape):,} elements; "
                f"at most {MAX_SAMPLE_ELEMENTS:,} are exported with."
            )
    sample = sample_inputs(signature, {}, torch.Generator().manual_seed(SAMPLE_SEED))
    return ExportRequest(module, signature, options, sample)


def requested_signature(signature: Signature, options: CommonOptions) -> Signature:
    """The architecture's signature with the client's options applied. Raises InvalidOptions."""
    signature = _with_example_shapes(signature, _by_input(signature, options.example_shapes, options, "example_shapes"))
    if options.dynamic_axes is not None:
        signature = _with_axes(signature, _by_input(signature, options.dynamic_axes, options, "dynamic_axes"))
    return _with_names(_with_room_to_vary(signature), options)


def signature_of_file(signature: Signature, options: CommonOptions) -> Signature:
    """A requested signature as the file has it, whose inputs and outputs of float32 may stand in another dtype."""
    if options.io_dtype is None:
        return signature
    narrowed = {"dtype": options.io_dtype}
    inputs = tuple(s.model_copy(update=narrowed) if s.dtype == "float32" else s for s in signature.inputs)
    outputs = tuple(s.model_copy(update=narrowed) if s.dtype == "float32" else s for s in signature.outputs)
    return signature.model_copy(update={"inputs": inputs, "outputs": outputs})


def asked_axes(signature: Signature) -> dict[str, dict[int, str]]:
    """Axis position to axis name of every input with axes that vary."""
    axes = {
        spec.name: {at: size for at, size in enumerate(spec.shape) if isinstance(size, str)}
        for spec in signature.inputs
    }
    return {name: named for name, named in axes.items() if named}


def _by_input(
    signature: Signature, settings: Mapping[str, Setting] | None, options: CommonOptions, option: str
) -> dict[str, Setting]:
    """``settings`` under the architecture's input names."""
    names = [spec.name for spec in signature.inputs]
    renamed = dict(zip(options.input_names or (), names, strict=False))
    chosen: dict[str, Setting] = {}
    for given, setting in (settings or {}).items():
        name = given if given in names else renamed.get(given)
        if name is None:
            raise InvalidOptions(f"{option} names an input {given!r}; the inputs are {', '.join(names)}.")
        chosen[name] = setting
    return chosen


def _with_example_shapes(signature: Signature, shapes: Mapping[str, tuple[int, ...]]) -> Signature:
    samples: dict[str, int] = {}
    inputs = []
    for spec in signature.inputs:
        shape = shapes.get(spec.name)
        if shape is None:
            inputs.append(spec)
            continue
        if len(shape) != len(spec.shape) or any(size < 1 for size in shape):
            raise InvalidOptions(
                f"example_shapes gives {list(shape)} for input {spec.name!r}, which is {list(spec.shape)}: "
                "one size of at least 1 for each axis is needed."
            )
        sizes: list[int | str] = []
        for declared, size in zip(spec.shape, shape, strict=True):
            sizes.append(declared if isinstance(declared, str) else size)
            if isinstance(declared, str) and samples.setdefault(declared, size) != size:
                raise InvalidOptions(
                    f"example_shapes gives axis {declared!r} two sizes: {samples[declared]} and {size}."
                )
        inputs.append(spec.model_copy(update={"shape": tuple(sizes)}))
    axes = tuple(_resized(axis, samples.get(axis.name)) for axis in signature.axes)
    return signature.model_copy(update={"inputs": tuple(inputs), "axes": axes})


def _resized(axis: Axis, size: int | None) -> Axis:
    if size is None:
        return axis
    if size < axis.minimum or (axis.maximum is not None and size > axis.maximum) or size % axis.multiple_of:
        raise InvalidOptions(
            f"example_shapes gives axis {axis.name!r} the size {size}; it takes multiples of {axis.multiple_of} "
            f"from {axis.minimum}{f' to {axis.maximum}' if axis.maximum is not None else ''}."
        )
    return axis.model_copy(update={"sample": size})


def _with_axes(signature: Signature, dynamic: Mapping[str, Mapping[int, str]]) -> Signature:
    """Only the axes in ``dynamic`` stay symbolic, under the names given there."""
    axes: dict[str, Axis] = {}
    inputs = []
    for spec in signature.inputs:
        sizes: list[int | str] = list(concrete_shape(signature, spec, {}))
        for given, name in dynamic.get(spec.name, {}).items():
            position = _position(spec, given)
            axis = _renamed(signature, spec.shape[position], name)
            if axes.setdefault(name, axis) != axis:
                raise InvalidOptions(f"dynamic_axes gives the name {name!r} to axes of different sizes.")
            sizes[position] = name
        inputs.append(spec.model_copy(update={"shape": tuple(sizes)}))
    return signature.model_copy(update={"inputs": tuple(inputs), "axes": tuple(axes.values())})


def _position(spec: InputSpec, given: int) -> int:
    position = given + len(spec.shape) if given < 0 else given
    if not 0 <= position < len(spec.shape):
        raise InvalidOptions(
            f"dynamic_axes names axis {given} of input {spec.name!r}, which has {len(spec.shape)} axes."
        )
    return position


def _renamed(signature: Signature, declared: int | str, name: str) -> Axis:
    """The declared axis under its new name; a fixed size that was asked to vary may grow from where it is."""
    if not name.isidentifier():
        raise InvalidOptions(f"{name!r} is no name for an axis: letters, digits and underscores are.")
    if isinstance(declared, str):
        return signature.axis(declared).model_copy(update={"name": name})
    return Axis(name=name, minimum=declared, sample=declared)


def _with_room_to_vary(signature: Signature) -> Signature:
    """Sample sizes of at least 2 on dynamic axes: exporters take a size of 1 for broadcasting."""
    return signature.model_copy(update={"axes": tuple(_at_least_two(axis) for axis in signature.axes)})


def _at_least_two(axis: Axis) -> Axis:
    if axis.sample >= 2 or (axis.maximum is not None and axis.maximum < 2):
        return axis
    return axis.model_copy(update={"sample": max(2, axis.multiple_of)})


def _with_names(signature: Signature, options: CommonOptions) -> Signature:
    changes: dict[str, tuple[InputSpec, ...] | tuple[OutputSpec, ...]] = {}
    inputs, outputs = options.input_names, options.output_names
    if inputs is not None:
        if len(inputs) != len(signature.inputs):
            raise InvalidOptions(
                f"input_names has {len(inputs)} names; the architecture has {len(signature.inputs)} inputs."
            )
        changes["inputs"] = tuple(
            spec.model_copy(update={"name": name, "argument": spec.argument or spec.name})
            for spec, name in zip(signature.inputs, inputs, strict=True)
        )
    if outputs is not None:
        if signature.outputs and len(outputs) != len(signature.outputs):
            raise InvalidOptions(
                f"output_names has {len(outputs)} names; the architecture has {len(signature.outputs)} outputs."
            )
        declared = signature.outputs or tuple(OutputSpec(name=name) for name in outputs)
        changes["outputs"] = tuple(
            spec.model_copy(update={"name": name}) for spec, name in zip(declared, outputs, strict=True)
        )
    names = [*(inputs or (spec.name for spec in signature.inputs)), *(outputs or ())]
    if len(set(names)) != len(names) or not all(name and name.isprintable() for name in names):
        raise InvalidOptions(
            f"Names of inputs and outputs must differ and not be empty: {', '.join(map(repr, names))}."
        )
    return signature.model_copy(update=changes)
