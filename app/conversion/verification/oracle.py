"""The reference: the eager module with the uploaded weights, in its own dtype and, where asked for, in float64.

Three ways to the float64 values, in this order (verification.md, point 1):

1. every operator widened as the forward reaches it (promotion.py); memory: float64 activations, one operator's weights
2. a float64 copy of the module, when a forward does what a dispatch mode cannot follow, and the copy fits
3. a second float32 evaluation in another order (one thread, channels_last) as the noise estimate; the report says so
"""

import copy
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import psutil
import torch
from torch import Tensor, nn

from app.architectures.calling import EagerModel, call
from app.architectures.module_state import state_kept
from app.conversion.verification.noise import noise_of_few
from app.conversion.verification.probes import Probe
from app.conversion.verification.promotion import Promoted, Trace, observing, promotion, unwrap
from app.conversion.verification.reference import Exact, ModelFailed, Oracle, Reference
from app.conversion.verification.tolerance import is_inexact
from app.domain.text import message_of


def reference(model: EagerModel, probe: Probe, coarseness: float = 1.0) -> Reference:
    """The outputs in the model's own dtype, and an oracle to be asked. Raises ModelFailed.

    ``coarseness``: as of Reference.
    """
    begun = time.process_time()
    y32, trace = observed(model, probe.inputs)
    seconds = time.process_time() - begun
    again = partial(eager_once_more, model)
    taken = Reference(probe, y32, trace, Oracle(None), again=again, coarseness=coarseness, seconds=seconds)
    return replace(taken, oracle=oracle(model, taken))


def oracle(model: EagerModel, taken: Reference) -> Oracle:
    """One that answers for this reference."""

    def ask() -> Exact:
        answer = _exact(model, taken)
        return replace(answer, noise=noise_of_few(replace(taken, oracle=Oracle(None, answer))))

    return Oracle(ask)


def observed(model: EagerModel, inputs: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Trace]:
    """The module's outputs in its own dtype and what it did, as far as that can be seen. Raises ModelFailed."""
    trace = Trace()
    try:
        with observing(trace):
            return call(model, inputs), trace
    except Exception:  # noqa: BLE001 - a forward that fails by itself does so once more
        return eager(model, inputs), Trace()


def _exact(model: EagerModel, taken: Reference) -> Exact:
    y32, inputs, detours = taken.y32, taken.probe.inputs, []
    try:
        trace = Trace()
        y64 = _alike(_widened(model, inputs, trace), y32)
        if all(is_inexact(value) for value in y32.values()):
            trace.choices.clear()  # only integer outputs need them, and scores can be large
        return Exact(y64, "fp64", trace)
    except Exception as detour:  # noqa: BLE001 - whatever a forward raises under the mode; told in the report
        detours.append(f"operator by operator: {message_of(detour, 200)}")
    if _copy_fits(model.module):
        try:
            y64 = _alike(_copied(model, inputs), y32)
            return Exact(y64, "fp64", Trace(), tuple(detours))
        except Exception as detour:  # noqa: BLE001 - as above
            detours.append(f"float64 copy: {message_of(detour, 200)}")
    second, y64 = _reordered(model, inputs, y32)
    return Exact(y64, "fp32-reordered", Trace(), tuple(detours), eager=second)


def _alike(y64: dict[str, Tensor], y32: dict[str, Tensor]) -> dict[str, Tensor]:
    """y64, unless it cannot be compared: where a threshold decides how many rows come out, rounding can decide it."""
    for name, value in y32.items():
        if y64[name].shape != value.shape:
            raise ValueError(f"{name} has shape {tuple(y64[name].shape)} in float64 and {tuple(value.shape)} in eager")
    return y64


def eager(model: EagerModel, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The module's outputs in its own dtype. Raises ModelFailed."""
    try:
        return call(model, inputs)
    except Exception as failure:
        raise ModelFailed(f"{type(failure).__name__}: {message_of(failure)}") from failure


def eager_once_more(model: EagerModel, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Like ``eager``, for evidence only: nothing of it stays in the module. Raises ModelFailed."""
    with state_kept(model.module):
        return eager(model, inputs)


def _widened(model: EagerModel, inputs: Mapping[str, Tensor], trace: Trace) -> dict[str, Tensor]:
    with torch.inference_mode():
        wide = {name: Promoted(v.double()) if v.dtype == torch.float32 else v for name, v in inputs.items()}
    with state_kept(model.module), promotion(trace):
        outputs = call(model, wide)
    trace.sigmoids = frozenset(name for name, value in outputs.items() if getattr(value, "from_sigmoid", False))
    return {name: unwrap(value) for name, value in outputs.items()}


def _copied(model: EagerModel, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    with default_dtype(torch.float64):
        doubled = copy.deepcopy(model.module).double()
        outputs = call(
            replace(model, module=doubled), {n: v.double() if v.is_floating_point() else v for n, v in inputs.items()}
        )
    return {name: value.double() if value.is_floating_point() else value for name, value in outputs.items()}


def _copy_fits(module: nn.Module) -> bool:
    """True while a float64 copy takes less than half of the memory that is free."""
    elements = sum(tensor.numel() for tensor in (*module.parameters(), *module.buffers()))
    return 8 * elements < int(psutil.virtual_memory().available) // 2


def _reordered(
    model: EagerModel, inputs: Mapping[str, Tensor], y32: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(second float32 evaluation, first one widened): their distance estimates the rounding noise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        turned = {n: v.to(memory_format=torch.channels_last) if v.dim() == 4 else v for n, v in inputs.items()}
        second = _alike(eager(model, turned), y32)
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
