"""The reference: the eager module with the uploaded weights, in its own dtype and in float64.

Three ways to the float64 values, in this order (verification.md, point 1):

1. every operator widened as the forward reaches it (widening.py); memory: float64 activations, one operator's weights
2. a float64 copy of the module, when a forward does what a dispatch mode cannot follow, and the copy fits
3. a second float32 evaluation in another order (one thread, channels_last) as the noise estimate; the report says so
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import psutil
import torch
from torch import Tensor, nn

from app.architectures.calling import call
from app.conversion.verification.gate import Gate, farthest, gate_of
from app.conversion.verification.probes import Probe
from app.conversion.verification.runtime import first_lines
from app.conversion.verification.widening import Trace, Widened, unwrap, widening
from app.domain.architecture import Signature

SAMPLES = 8
"""Elements of an output from which its error can be told."""

OracleKind = Literal["fp64", "fp32-reordered"]


class ModelFailed(Exception):
    """The eager module itself cannot run on a probe; its message is the module's."""


@dataclass(frozen=True)
class Reference:
    """What the model computes on a probe. ``y32`` in the model's own dtype, ``y64`` in float64, by output name."""

    probe: Probe
    y32: dict[str, Tensor]
    y64: dict[str, Tensor]
    kind: OracleKind
    trace: Trace
    detours: tuple[str, ...] = ()
    """Why an earlier way to the float64 values did not work."""
    noise: Mapping[str, float] = field(default_factory=dict)
    """Errors of eager on nudged inputs, for outputs of few elements."""
    again: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = field(kw_only=True)
    """The model in its own dtype on other inputs. Raises ModelFailed."""

    def gate(self, output: str) -> Gate:
        """The gate of a float output on this probe."""
        unit = 1.0 if output in self.trace.sigmoids else 0.0
        noise, jumps = self.noise.get(output, 0.0), self.trace.steps
        return gate_of(self.y32[output], self.y64[output], noise=noise, unit=unit, jumps=jumps)

    @property
    def float_outputs(self) -> tuple[str, ...]:
        return tuple(name for name, value in self.y32.items() if is_inexact(value))

    @property
    def finite(self) -> bool:
        return all(bool(torch.isfinite(self.y32[name]).all()) for name in self.float_outputs)


def is_inexact(value: Tensor) -> bool:
    """True for float and complex tensors, which are compared within a gate; others are compared exactly."""
    return value.is_floating_point() or value.is_complex()


def reference(module: nn.Module, signature: Signature, probe: Probe) -> Reference:
    """Both forwards on a probe, and what is needed to judge by them. Raises ModelFailed as both_forwards does."""
    taken = both_forwards(module, signature, probe)
    return replace(taken, noise=_noise(module, signature, taken))


def both_forwards(module: nn.Module, signature: Signature, probe: Probe) -> Reference:
    """The outputs in both precisions and the trace. Raises ModelFailed when the module cannot run on the probe."""
    again = partial(eager, module, signature)
    y32 = again(probe.inputs)
    detours = []
    try:
        trace = Trace()
        y64 = _alike(_widened(module, signature, probe.inputs, trace), y32)
        if all(is_inexact(value) for value in y32.values()):
            trace.choices.clear()  # only integer outputs need them, and scores can be large
        return Reference(probe, y32, y64, "fp64", trace, again=again)
    except Exception as detour:  # noqa: BLE001 - whatever a forward raises under the mode; told in the report
        detours.append(f"operator by operator: {first_lines(detour, 200)}")
    if _copy_fits(module):
        try:
            y64 = _alike(_copied(module, signature, probe.inputs), y32)
            return Reference(probe, y32, y64, "fp64", Trace(), tuple(detours), again=again)
        except Exception as detour:  # noqa: BLE001 - as above
            detours.append(f"float64 copy: {first_lines(detour, 200)}")
    second, y64 = _reordered(module, signature, probe.inputs, y32)
    return Reference(probe, second, y64, "fp32-reordered", Trace(), tuple(detours), again=again)


def _noise(module: nn.Module, signature: Signature, taken: Reference) -> dict[str, float]:
    """The greatest error of eager on inputs moved by their last bit, for outputs of fewer than SAMPLES elements.

    One element may be right by luck: of two errors of one distribution, the second is eight times the first in 8 % of
    all cases; the second is eight times the greatest of eight in one of a million.
    """
    few = {name: taken.y32[name].numel() for name in taken.float_outputs if 0 < taken.y32[name].numel() < SAMPLES}
    noise = dict.fromkeys(few, 0.0)
    for seed in range(-(-SAMPLES // min(few.values())) - 1 if few and taken.finite else 0):
        try:
            outputs = eager(module, signature, nudged(taken.probe.inputs, seed))
        except ModelFailed:
            continue
        for name in few:
            if outputs[name].shape == taken.y64[name].shape:
                noise[name] = max(noise[name], farthest(outputs[name], taken.y64[name]))
    return noise


def pooled(references: Sequence[Reference]) -> list[Reference]:
    """The references with what all draws tell of the error of outputs that have fewer than SAMPLES elements.

    Scaled probes keep their own: errors need not grow with the scale.
    """
    drawn = [reference for reference in references if not reference.probe.scaled]
    relative: dict[str, float] = {}
    for reference in drawn:
        for name in reference.noise:
            gate = reference.gate(name)
            if gate.scale > 0:
                relative[name] = max(relative.get(name, 0.0), gate.eager_error / gate.scale)
    return [
        replace(r, noise={n: relative.get(n, 0.0) * r.gate(n).scale for n in r.noise}) if not r.probe.scaled else r
        for r in references
    ]


def nudged(inputs: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Every float element one step of its dtype up or down, at random; other dtypes as they are."""
    generator = torch.Generator().manual_seed(seed)
    return {name: _nudged(v, generator) if v.is_floating_point() else v for name, v in inputs.items()}


def _nudged(value: Tensor, generator: torch.Generator) -> Tensor:
    up = torch.rand(value.shape, generator=generator) < 0.5
    return torch.nextafter(value, torch.where(up, torch.inf, -torch.inf).to(value.dtype))


def _alike(y64: dict[str, Tensor], y32: dict[str, Tensor]) -> dict[str, Tensor]:
    """y64, unless it cannot be compared: where a threshold decides how many rows come out, rounding can decide it."""
    for name, value in y32.items():
        if y64[name].shape != value.shape:
            raise ValueError(f"{name} has shape {tuple(y64[name].shape)} in float64 and {tuple(value.shape)} in eager")
    return y64


def eager(module: nn.Module, signature: Signature, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The module's outputs in its own dtype. Raises ModelFailed."""
    try:
        return call(module, signature, inputs)
    except Exception as failure:
        raise ModelFailed(f"{type(failure).__name__}: {first_lines(failure)}") from failure


def _widened(module: nn.Module, signature: Signature, inputs: Mapping[str, Tensor], trace: Trace) -> dict[str, Tensor]:
    with torch.inference_mode():
        wide = {name: Widened(v.double()) if v.dtype == torch.float32 else v for name, v in inputs.items()}
    with widening(trace):
        outputs = call(module, signature, wide)
    trace.sigmoids = frozenset(name for name, value in outputs.items() if getattr(value, "from_sigmoid", False))
    return {name: unwrap(value) for name, value in outputs.items()}


def _copied(module: nn.Module, signature: Signature, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    with default_dtype(torch.float64):
        doubled = copy.deepcopy(module).double()
        outputs = call(doubled, signature, {n: v.double() if v.is_floating_point() else v for n, v in inputs.items()})
    return {name: value.double() if value.is_floating_point() else value for name, value in outputs.items()}


def _copy_fits(module: nn.Module) -> bool:
    """True while a float64 copy takes less than half of the memory that is free."""
    elements = sum(tensor.numel() for tensor in (*module.parameters(), *module.buffers()))
    return 8 * elements < int(psutil.virtual_memory().available) // 2


def _reordered(
    module: nn.Module, signature: Signature, inputs: Mapping[str, Tensor], y32: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(second float32 evaluation, first one widened): their distance estimates the rounding noise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        turned = {n: v.to(memory_format=torch.channels_last) if v.dim() == 4 else v for n, v in inputs.items()}
        second = _alike(eager(module, signature, turned), y32)
    except (ModelFailed, ValueError):
        second = y32  # the gate is then the least that float32 permits
    finally:
        torch.set_num_threads(threads)
    return second, {name: v.double() if v.is_floating_point() else v for name, v in y32.items()}


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Inside, tensors made without a dtype have this one."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
