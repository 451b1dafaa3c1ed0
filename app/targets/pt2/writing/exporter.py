"""Capturing a program with torch.export."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.export._patches import register_gru_while_loop_decomposition, register_lstm_while_loop_decomposition

from app.domain.architecture import InputSpec
from app.domain.errors import ExportFailed, RecastError, StaticAxis
from app.targets.capturing.attention import plain_attention
from app.targets.capturing.eval_mode import assert_eval
from app.targets.capturing.fixed_axis import tells_of_fixed_axis
from app.targets.capturing.flat_module import FlatModule
from app.targets.capturing.place import Place
from app.targets.capturing.quiet import collected, first_lines
from app.targets.capturing.recurrent import forget_recurrent_kernels
from app.targets.request import ExportRequest


@dataclass(frozen=True)
class CapturedPt2:
    """``program`` takes the inputs by position and gives a tuple of tensors, called ``outputs``."""

    program: ExportedProgram
    outputs: tuple[str, ...]
    warnings: tuple[str, ...]
    kept: tuple[Place, ...] = ()
    """torch.export keeps no answer of its sample: it raises."""


def capture(request: ExportRequest) -> CapturedPt2:
    """Export the module, flattened, without decompositions.

    Raises StaticAxis if the model's code fixes an axis that was asked to vary, and ExportFailed with the first lines of
    why.
    """
    assert_eval(request.module)
    flat = FlatModule(request).eval()
    # Where gradients are kept, torch.export chooses attention kernels by other strides.
    with collected() as said, plain_attention(), torch.no_grad():
        try:
            program = _exported(flat, request)
        except StaticAxis:
            if not any(isinstance(part, nn.GRU | nn.LSTM) for part in flat.modules()):
                raise
            with _recurrence_as_loops():
                program = _exported(flat, request)
    assert_eval(request.module)
    return CapturedPt2(program, flat.output_names, tuple(said.lines))


def _exported(flat: FlatModule, request: ExportRequest) -> ExportedProgram:
    try:
        return torch.export.export(
            flat,
            tuple(request.sample[spec.name].clone() for spec in request.signature.inputs),
            dynamic_shapes={"inputs": tuple(map(_dynamic_shape, request.signature.inputs))},
            strict=False,
        )
    except RecastError:
        raise
    except Exception as error:  # the exporter wraps whatever the model and its own passes raise
        raise _failure(error) from error


@contextmanager
def _recurrence_as_loops() -> Iterator[None]:
    """Recurrent layers as loops over a sequence of any length, as torch.onnx takes them, and not step by step.

    What torch has looked up of their kernels before is forgotten, and afterwards what it found here.
    """
    forget_recurrent_kernels()
    with register_gru_while_loop_decomposition(), register_lstm_while_loop_decomposition():
        yield
    forget_recurrent_kernels()


def _dynamic_shape(spec: InputSpec) -> dict[int, object] | None:
    # Dim.DYNAMIC, never a Dim with a name: with that, an axis that the code fixes is silently exported static.
    return {at: Dim.DYNAMIC for at, size in enumerate(spec.shape) if isinstance(size, str)} or None


def _failure(error: Exception) -> RecastError:
    said = first_lines(str(error)) or type(error).__name__
    if tells_of_fixed_axis(error):
        return StaticAxis(
            f"The model's code fixes the size of an axis that was asked to be dynamic: {said}",
            stage="export",
            hint="Ask for fewer dynamic axes; dynamic_axes={} makes all static.",
        )
    hint = None
    if "data-dependent" in str(error).lower():
        hint = "The forward pass branches on values, which torch.export refuses; TorchScript keeps such branches."
    return ExportFailed(f"torch.export: {type(error).__name__}: {said}", stage="export", hint=hint)
