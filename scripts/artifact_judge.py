"""An independent judge of artifacts: runs one beside eager PyTorch at sizes and inputs of its own.

It imports nothing of ``app.conversion``: it draws its own inputs and flattens results itself. It asks for the same
number of outputs, the same shapes, dtypes and integers, NaN and either infinity in the same places, and an error of at
most JUDGED roundings or RELATIVE of the output's scale.
"""

import inspect
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from app.architectures.calling import EagerModel, bind
from app.domain.architecture import Axis, InputSpec, Integers, Mask, Normal, Signature, Uniform

JUDGED = 30.0
"""Times the rounding that eager itself shows beside float64."""
RELATIVE = 1e-4
TIE = 1e-5
"""Of a score: the difference up to which rounding may order two rows."""
ULPS = 4
"""Unit roundoffs of the dtype that are never wrong: more than RELATIVE in half precision only."""
ROUNDOFF = {torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
MIXED_SIZES = 10
SCALES = (0.01, 30.0)
MOST_FAULTS = 12
Inputs = dict[str, Tensor]
Run = Callable[[Inputs], list[Tensor]]


@dataclass(frozen=True)
class Judgement:
    """``faults``: what was wrong and where, at most a dozen; ``refused``: trials that eager itself refuses."""

    trials: int
    refused: int
    faults: tuple[str, ...]

    @property
    def right(self) -> bool:
        """False too where eager refused every trial: then nothing is known."""
        return self.trials > 0 and not self.faults


def judge(
    fresh: Callable[[], nn.Module],
    signature: Signature,
    artifact: Path,
    sizes: Mapping[str, list[int]] | None = None,
    extra: Callable[..., Any] | None = None,
) -> Judgement:
    """``fresh`` gives the module with its weights, in eval mode, as no run has left it; each trial asks for another.

    ``sizes`` are those to try of each axis by its name; ``extra(draw)`` or ``extra(draw, module)`` yields more inputs.
    """
    try:
        run = _runner(artifact, fresh(), signature)
    except Exception as refusal:  # noqa: BLE001 - whatever the runtime says is the judgement
        return Judgement(1, 0, (f"does not load: {_first_line(refusal)}",))
    trials, refused, faults = 0, 0, []
    for name, inputs in _trials(signature, sizes or {}, extra, fresh):
        try:
            expected = _eager(fresh(), signature, inputs)
        except Exception:  # noqa: BLE001 - what the model refuses is no trial of its artifact
            refused += 1
            continue
        trials += 1
        try:
            got = run(inputs)
        except Exception as failure:  # noqa: BLE001
            faults.append(f"{name}: the artifact raises: {_first_line(failure)}")
            continue
        found = list(_differences(got, expected, _exact(fresh, signature, inputs)))
        if found and _same_rows(got, expected):
            found = []
        faults += [f"{name}: {fault}" for fault in found]
        if len(faults) >= MOST_FAULTS:
            break
    return Judgement(trials, refused, tuple(faults[:MOST_FAULTS]))


def _runner(artifact: Path, module: nn.Module, signature: Signature) -> Run:
    if artifact.suffix == ".onnx":
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        session = onnxruntime.InferenceSession(str(artifact), options, providers=["CPUExecutionProvider"])
        names = [node.name for node in session.get_inputs()]

        def run_onnx(values: Inputs) -> list[Tensor]:
            feed = {name: values[name].clone().numpy() for name in names}
            return [torch.from_numpy(np.asarray(value)) for value in session.run(None, feed)]

        return run_onnx
    if artifact.suffix == ".pt2":
        program = torch.export.load(str(artifact)).module()
        order = [spec.name for spec in signature.inputs]

        def run_program(values: Inputs) -> list[Tensor]:
            with torch.no_grad():
                return list(tensors_of(program(*(values[name].clone() for name in order))))

        return run_program
    script = torch.jit.load(str(artifact))

    def run_script(values: Inputs) -> list[Tensor]:
        args, kwargs = bind(EagerModel(module, signature), _cloned(values))
        with torch.no_grad():
            return list(tensors_of(script(*args, **kwargs)))

    return run_script


def _trials(
    signature: Signature,
    plan: Mapping[str, list[int]],
    extra: Callable[..., Any] | None,
    fresh: Callable[[], nn.Module],
) -> Iterator[tuple[str, Inputs]]:
    for number, sizes in enumerate(_sizes(signature, plan)):
        yield f"sizes {json.dumps(sizes)}", _drawn(signature, sizes, 100 + number)
    for scale in SCALES:
        yield f"scale {scale}", _drawn(signature, {}, 9, scale)
    if extra is not None:

        def draw(seed: int = 77, **sizes: int) -> Inputs:
            return _drawn(signature, sizes, seed)

        takes = len(inspect.signature(extra).parameters)
        for number, inputs in enumerate(extra(*(draw, fresh())[:takes])):
            yield f"extra {number}", inputs


def _sizes(signature: Signature, plan: Mapping[str, list[int]]) -> list[dict[str, int]]:
    """Each axis at each of its sizes with the others as exported, then mixtures of all."""
    per_axis = {axis.name: plan.get(axis.name) or _usual(axis) for axis in signature.axes}
    base = {axis.name: axis.sample for axis in signature.axes}
    chosen = [{**base, name: size} for name, sizes in per_axis.items() for size in sizes]
    random = np.random.RandomState(0)
    chosen += [{name: int(random.choice(sizes)) for name, sizes in per_axis.items()} for _ in range(MIXED_SIZES)]
    return [sizes for place, sizes in enumerate(chosen) if sizes not in chosen[:place]]


def _usual(axis: Axis) -> list[int]:
    return [1, 2, 3, 5, 8] if axis.name == "batch" else sorted({max(axis.minimum, 1), axis.sample})


def _drawn(signature: Signature, sizes: Mapping[str, int], seed: int, scale: float = 1.0) -> Inputs:
    """Every input by name at these sizes; axes not among them have their sample size."""
    random = torch.Generator().manual_seed(seed)
    every = {axis.name: axis.sample for axis in signature.axes} | dict(sizes)
    return {
        spec.name: _values(spec, [size if isinstance(size, int) else every[size] for size in spec.shape], random, scale)
        for spec in signature.inputs
    }


def _values(spec: InputSpec, shape: list[int], random: torch.Generator, scale: float) -> Tensor:
    match spec.distribution:
        case Normal(mean=mean, std=std):
            value = (torch.randn(shape, generator=random) * std + mean) * scale
        case Uniform(low=low, high=high):
            value = (torch.rand(shape, generator=random) * (high - low) + low) * scale
        case Integers(low=low, high=high):
            value = torch.randint(low, high + 1, shape, generator=random)
            if value.numel() > 1:
                value.view(-1)[0], value.view(-1)[-1] = low, high
        case Mask():
            rows, length = math.prod(shape[:-1]), shape[-1]
            kept = torch.randint(1, length + 1, (rows,), generator=random) if length else torch.zeros(rows)
            value = (torch.arange(length) < kept[:, None]).view(shape)
    return value.to(getattr(torch, spec.dtype))


def _cloned(inputs: Inputs) -> Inputs:
    return {name: value.clone() for name, value in inputs.items()}


def tensors_of(value: Any) -> Iterator[Tensor]:
    """Tensors of a result in the order in which torch's pytree and TorchScript flatten it."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors_of(part)
    elif is_dataclass(value):
        for field in fields(value):
            yield from tensors_of(getattr(value, field.name))
    elif value is not None:
        for part in value:
            yield from tensors_of(part)


def _eager(module: nn.Module, signature: Signature, inputs: Inputs) -> list[Tensor]:
    """The outputs by plain operators: fused attention gives other values at padding, as a note of the report tells."""
    args, kwargs = bind(EagerModel(module, signature), _cloned(inputs))
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            return list(tensors_of(module(*args, **kwargs)))
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _exact(fresh: Callable[[], nn.Module], signature: Signature, inputs: Inputs) -> list[Tensor] | None:
    """The outputs in float64; None for a module that cannot be widened, which is judged against itself."""
    wide = {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}
    before = torch.get_default_dtype()
    try:
        module = fresh().double()
        torch.set_default_dtype(torch.float64)
        return _eager(module, signature, wide)
    except Exception:  # noqa: BLE001
        return None
    finally:
        torch.set_default_dtype(before)


def _differences(got: list[Tensor], expected: list[Tensor], exact: list[Tensor] | None) -> Iterator[str]:
    if len(got) != len(expected):
        yield f"{len(got)} outputs, eager {len(expected)}"
        return
    widths = exact if exact is not None and len(exact) == len(expected) else expected
    for place, (value, eager, wide) in enumerate(zip(got, expected, widths, strict=True)):
        fault = _difference(value, eager, wide if wide.shape == eager.shape else eager)
        if fault is not None:
            yield f"output {place}: {fault}"


def _difference(value: Tensor, eager: Tensor, wide: Tensor) -> str | None:
    if value.shape != eager.shape or value.dtype != eager.dtype:
        return f"{value.dtype} {tuple(value.shape)}, eager {eager.dtype} {tuple(eager.shape)}"
    if not (eager.is_floating_point() or eager.is_complex()):
        wrong = int((value != eager).sum())
        return f"{wrong} of {eager.numel()} differ" if wrong else None
    if eager.numel() == 0:
        return None
    kind = torch.complex128 if eager.is_complex() else torch.float64
    v, e, w = (tensor.to(kind) for tensor in (value, eager, wide))
    if any(not torch.equal(mark(v), mark(e)) for mark in _marks(eager)):
        return "NaN or infinity in other places"
    finite = torch.isfinite(e)
    if not bool(finite.any()):
        return None
    v, e, w = v[finite], e[finite], w[finite]
    if not bool(torch.isfinite(w).all()):
        w = e
    scale = max(float(e.abs().max()), 1e-30)
    error = min(float((v - w).abs().max()), float((v - e).abs().max()))
    roundoff = ROUNDOFF[eager.dtype.to_real() if eager.is_complex() else eager.dtype]
    least = max(RELATIVE, ULPS * roundoff) * scale
    wrong_by = error > max(JUDGED * float((e - w).abs().max()), least)
    return f"error {error:.3g} at scale {scale:.3g}" if wrong_by else None


def _same_rows(got: list[Tensor], eager: list[Tensor]) -> bool:
    """Whether rows whose scores are equal but for rounding, as those of a detector, changed places and nothing else.

    All outputs must have as many rows, and one of them be descending scores; rows are matched one by one.
    """
    if len(got) != len(eager) or any(a.shape != b.shape or a.dim() == 0 for a, b in zip(got, eager, strict=True)):
        return False
    rows = {len(value) for value in eager}
    scores = (value.double() for value in eager if value.dim() == 1 and value.is_floating_point())
    ranks = next((each for each in scores if bool((each[:-1] >= each[1:]).all())), None)
    if len(rows) != 1 or ranks is None:
        return False
    left = set(range(rows.pop()))
    for row in range(len(ranks)):
        near = [
            other for other in sorted(left) if abs(float(ranks[other] - ranks[row])) <= TIE * abs(float(ranks[row]))
        ]
        match = next((other for other in near if _rows_alike(got, eager, row, other)), None)
        if match is None:
            return False
        left.remove(match)
    return True


def _rows_alike(got: list[Tensor], eager: list[Tensor], row: int, other: int) -> bool:
    return all(_difference(a[row], b[other], b[other]) is None for a, b in zip(got, eager, strict=True))


def _marks(tensor: Tensor) -> tuple[Callable[[Tensor], Tensor], ...]:
    """Places that must agree: signs of infinity where the numbers have one."""
    return (torch.isnan, torch.isinf) if tensor.is_complex() else (torch.isnan, torch.isposinf, torch.isneginf)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
