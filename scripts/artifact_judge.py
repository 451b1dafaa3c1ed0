"""An independent judge of artifacts: runs one beside eager PyTorch at sizes and inputs of its own.

It shares no code with the verification: it asks for an error of at most JUDGED roundings or RELATIVE of the output's
scale, the same shapes, dtypes, integers, and NaN and infinity in the same places.
"""

import inspect
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from app.architectures.calling import bind, flatten
from app.architectures.sample import sample_inputs
from app.domain.architecture import Signature

JUDGED = 30.0
"""Times the rounding that eager itself shows, or 4 u of the scale."""
RELATIVE = 1e-4
ROUNDOFF = {torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
MIXED_SIZES = 10
SCALES = (0.01, 30.0)
Run = Callable[[dict[str, Tensor]], list[Tensor]]


@dataclass(frozen=True)
class Judgement:
    """``faults``: what was wrong and where, at most a dozen; ``refused``: trials that eager itself refuses."""

    trials: int
    refused: int
    faults: tuple[str, ...]
    worst: float
    """The greatest error in roundings."""

    @property
    def right(self) -> bool:
        return self.trials > 0 and not self.faults


def judge(fresh: Callable[[], nn.Module], signature: Signature, artifact: Path, case: ModuleType | None) -> Judgement:
    """``fresh`` builds the module with its weights anew; ``case`` may name sizes (JUDGE) and inputs (extra)."""
    module = fresh()
    double = _double(fresh)
    try:
        run = _runner(artifact, module, signature)
    except Exception as refusal:  # noqa: BLE001 - whatever the runtime says is the judgement
        return Judgement(1, 0, (f"does not load: {_first_line(refusal)}",), 0.0)
    trials, refused, worst, faults = 0, 0, 0.0, []
    for name, inputs in _trials(signature, case, module):
        try:
            expected = _eager(module, signature, inputs)
        except Exception:  # noqa: BLE001 - what the model refuses is no trial of its artifact
            refused += 1
            continue
        trials += 1
        exact = _exact(double, signature, inputs)
        try:
            got = run(inputs)
        except Exception as failure:  # noqa: BLE001
            faults.append(f"{name}: the artifact raises: {_first_line(failure)}")
            continue
        for fault, ratio in _differences(got, expected, exact):
            worst = max(worst, ratio)
            if fault is not None:
                faults.append(f"{name}: {fault}")
    return Judgement(trials, refused, tuple(faults[:12]), worst)


def _runner(artifact: Path, module: nn.Module, signature: Signature) -> Run:
    if artifact.suffix == ".onnx":
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        session = onnxruntime.InferenceSession(str(artifact), options, providers=["CPUExecutionProvider"])
        inputs, outputs = [i.name for i in session.get_inputs()], [o.name for o in session.get_outputs()]

        def run_onnx(values: dict[str, Tensor]) -> list[Tensor]:
            feed = {name: values[name].clone().numpy() for name in inputs}
            return [torch.from_numpy(np.asarray(value)) for value in session.run(outputs, feed)]

        return run_onnx
    script = torch.jit.load(str(artifact))

    def run_script(values: dict[str, Tensor]) -> list[Tensor]:
        args, kwargs = bind(module, signature, {name: value.clone() for name, value in values.items()})
        with torch.no_grad():
            return list(flatten(script(*args, **kwargs), signature).values())

    return run_script


def _trials(
    signature: Signature, case: ModuleType | None, module: nn.Module
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    for number, sizes in enumerate(_sizes(signature, getattr(case, "JUDGE", {}))):
        yield f"sizes {json.dumps(sizes)}", sample_inputs(signature, sizes, _seeded(100 + number))
    for scale in SCALES:
        yield f"scale {scale}", sample_inputs(signature, {}, _seeded(9), scale=scale)
    if hasattr(case, "extra"):

        def draw(seed: int = 77, **sizes: int) -> dict[str, Tensor]:
            return sample_inputs(signature, sizes, _seeded(seed))

        takes = len(inspect.signature(case.extra).parameters)
        for number, inputs in enumerate(case.extra(draw, module) if takes > 1 else case.extra(draw)):
            yield f"extra {number}", inputs


def _sizes(signature: Signature, plan: dict[str, list[int]]) -> list[dict[str, int]]:
    """Each axis at each of its sizes with the others as exported, then mixtures of all."""
    usual = {a.name: [1, 2, 3, 5, 8] if a.name == "batch" else [max(a.minimum, 1), a.sample] for a in signature.axes}
    per_axis = {name: plan.get(name, sizes) for name, sizes in usual.items()}
    base = {axis.name: axis.sample for axis in signature.axes}
    chosen = [{**base, name: size} for name, sizes in per_axis.items() for size in sizes]
    random = np.random.RandomState(0)
    chosen += [{name: int(random.choice(sizes)) for name, sizes in per_axis.items()} for _ in range(MIXED_SIZES)]
    return [sizes for place, sizes in enumerate(chosen) if sizes not in chosen[:place]]


def _eager(module: nn.Module, signature: Signature, inputs: dict[str, Tensor]) -> list[Tensor]:
    args, kwargs = bind(module, signature, {name: value.clone() for name, value in inputs.items()})
    with torch.no_grad():
        return list(flatten(module(*args, **kwargs), signature).values())


def _double(fresh: Callable[[], nn.Module]) -> nn.Module | None:
    try:
        return fresh().double()
    except Exception:  # noqa: BLE001 - a module that cannot be widened is judged against itself
        return None


def _exact(double: nn.Module | None, signature: Signature, inputs: dict[str, Tensor]) -> list[Tensor] | None:
    if double is None:
        return None
    wide = {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return _eager(double, signature, wide)
    except Exception:  # noqa: BLE001
        return None
    finally:
        torch.set_default_dtype(before)


def _differences(
    got: list[Tensor], expected: list[Tensor], exact: list[Tensor] | None
) -> Iterator[tuple[str | None, float]]:
    if len(got) != len(expected):
        yield f"{len(got)} outputs, eager {len(expected)}", 0.0
        return
    for place, (value, eager, wide) in enumerate(itertools.zip_longest(got, expected, exact or ())):
        if value.shape != eager.shape or value.dtype != eager.dtype:
            told = f"{value.dtype} {tuple(value.shape)}, eager {eager.dtype} {tuple(eager.shape)}"
            yield f"output {place}: {told}", 0.0
        elif not (eager.is_floating_point() or eager.is_complex()):
            wrong = int((value != eager).sum())
            yield (f"output {place}: {wrong} of {eager.numel()} differ" if wrong else None), 0.0
        elif eager.numel():
            yield _distance(place, value, eager, wide if wide is not None and wide.shape == eager.shape else eager)


def _distance(place: int, value: Tensor, eager: Tensor, wide: Tensor) -> tuple[str | None, float]:
    if bool((torch.isnan(value) != torch.isnan(eager)).any() or (torch.isinf(value) != torch.isinf(eager)).any()):
        return f"output {place}: NaN or infinity in other places", 0.0
    finite = torch.isfinite(eager)
    if not bool(finite.any()):
        return None, 0.0
    kind = torch.complex128 if eager.is_complex() else torch.float64
    v, e, w = (tensor.to(kind)[finite] for tensor in (value, eager, wide))
    if not bool(torch.isfinite(w).all()):
        w = e
    scale = max(float(e.abs().max()), 1e-30)
    roundoff = ROUNDOFF[eager.dtype.to_real() if eager.is_complex() else eager.dtype]
    rounding = max(float((e - w).abs().max()), 4 * roundoff * scale)
    error = min(float((v - w).abs().max()), float((v - e).abs().max()))
    ratio = error / rounding
    wrong = error > JUDGED * rounding and error > RELATIVE * scale
    return (f"output {place}: error {error:.3g} at scale {scale:.3g}" if wrong else None), ratio


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
