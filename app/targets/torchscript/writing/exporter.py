"""Capturing TorchScript, by trace or by script."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.jit._trace import TracingCheckError

from app.architectures.calling import bind
from app.architectures.module_state import ModuleState
from app.domain.errors import ExportFailed
from app.targets.capturing.attention import plain_attention
from app.targets.capturing.dataclass_results import dataclasses_opened
from app.targets.capturing.eval_mode import assert_eval
from app.targets.capturing.place import Place
from app.targets.capturing.quiet import Said, collected, first_lines
from app.targets.capturing.side import Side, at_side
from app.targets.capturing.tracing import tracing
from app.targets.request import ExportRequest
from app.targets.torchscript.spec import TorchScriptOptions
from app.targets.torchscript.writing.joined import JOINED, trace_sides

_VALUES = re.compile(r"Tracer cannot infer type of .*?\n:", re.DOTALL)
"""What the tracer says of a result, all its numbers in it."""

Method = Literal["trace", "script", "joined"]


@dataclass(frozen=True)
class CapturedTorchScript:
    module: torch.jit.ScriptModule
    method: str
    warnings: tuple[str, ...]
    kept: tuple[Place, ...] = ()
    """Lines of the model at which a trace kept the answer that its sample gave."""
    traced_with: tuple[Mapping[str, Tensor], ...] = ()
    """Inputs of the traces that it holds; none for code that was compiled."""


def capture(request: ExportRequest, method: Method) -> CapturedTorchScript:
    """Trace or script the module; then ``freeze`` and ``optimize_for_inference``, where asked for.

    The artifact takes the module's own arguments and returns its own structure. Raises ExportFailed with the first
    lines of why.
    """
    if method == "script":
        return _captured(request, method, lambda _: torch.jit.script(request.module), ())
    return _captured(request, method, partial(_checked, request), (request.sample,))


def capture_joined(request: ExportRequest, sides: Sequence[Side]) -> CapturedTorchScript:
    """Likewise by a trace of each side."""
    samples = tuple(at_side(request, side).sample for side in sides)
    return _captured(request, JOINED, lambda _: trace_sides(request, sides), samples)


def _captured(
    request: ExportRequest,
    method: Method,
    make: Callable[[Said], torch.jit.ScriptModule],
    traced_with: tuple[Mapping[str, Tensor], ...],
) -> CapturedTorchScript:
    options = _options(request)
    assert_eval(request.module)
    with tracing() if traced_with else collected() as said, plain_attention():
        try:
            captured = make(said)
            if options.freeze or options.optimize_for_inference:
                frozen = _frozen(captured)
                captured = _optimised(captured, frozen, said) if options.optimize_for_inference else frozen
        except Exception as error:  # the compiler and the tracer wrap whatever the model raises
            raise _failure(error, method) from error
    assert_eval(request.module)
    assert_eval(captured)
    kept = tuple(said.kept) if traced_with else ()
    return CapturedTorchScript(captured, method, tuple(said.lines), kept, traced_with)


def _options(request: ExportRequest) -> TorchScriptOptions:
    options = request.options
    if not isinstance(options, TorchScriptOptions):
        raise TypeError(f"the TorchScript exporter was given options of target {options.target}")
    return options


def _checked(request: ExportRequest, said: Said) -> torch.jit.ScriptModule:
    """A trace that torch compared with a second one, if it could: a module that keeps tables is another one then."""
    state = ModuleState(request.module)
    try:
        return _trace(request, check=_options(request).check_trace)
    except TracingCheckError as differing:
        said.lines.append(f"check_trace: {first_lines(str(differing))}")
        state.restore()
        return _trace(request, check=False)


def _trace(request: ExportRequest, *, check: bool) -> torch.jit.ScriptModule:
    inputs = {name: tensor.clone() for name, tensor in request.sample.items()}
    args, kwargs = bind(request, inputs)
    with torch.no_grad(), dataclasses_opened(request.module):
        traced: torch.jit.ScriptModule = torch.jit.trace(  # type: ignore[no-untyped-call]
            request.module,
            example_inputs=args if args else None,
            example_kwarg_inputs=kwargs if not args else None,
            check_trace=check,
            strict=False,
        )
    return traced.eval()


def _frozen(captured: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """The module inlined and folded, all but its weights: they stay attributes, so that none is lost in another."""
    frozen: torch.jit.ScriptModule = torch.jit.freeze(
        captured.eval(), preserved_attrs=list(captured.state_dict()), optimize_numerics=False
    )
    return frozen


def _optimised(captured: torch.jit.ScriptModule, frozen: torch.jit.ScriptModule, said: Said) -> torch.jit.ScriptModule:
    """``captured`` frozen and optimised for inference if the result can be saved, else ``frozen``."""
    try:
        optimised = torch.jit.optimize_for_inference(_frozen(captured))  # it changes what it is given
        if "ConstantMKLDNNTensor" not in str(optimised.graph):
            return optimised
    except RuntimeError as error:  # it lays out for this CPU what it cannot print afterwards, such as one channel
        if "Mkldnn" not in str(error):
            raise
    # Such tensors have the layout of this machine's CPU, and torch.jit.load cannot read them back.
    said.lines.append(
        "optimize_for_inference: layouts for one CPU cannot be saved; the file is frozen. "
        "Call torch.jit.optimize_for_inference on the loaded module for the rest."
    )
    return frozen


def _failure(error: Exception, method: Method) -> ExportFailed:
    said = first_lines(_VALUES.sub("the tracer has no type for what the model gives: ", str(error)), 6)
    said = said or type(error).__name__
    if "Only tensors" in str(error):
        hint = "TorchScript by trace returns tensors, tuples and dictionaries only; return one of these."
    elif method == "script":
        hint = "TorchScript compiles only a part of Python; method=trace records a run instead."
    else:
        hint = "method=script compiles the code instead of recording a run."
    return ExportFailed(f"torch.jit.{method}: {type(error).__name__}: {said}", stage="export", hint=hint)
