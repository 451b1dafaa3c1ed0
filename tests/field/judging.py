"""Whole conversions of small architectures, and a judge of the artifact that shares no code with the verification.

Wrong means another shape, dtype, integer or pattern of NaN than eager's, or an error above 30 roundings and 1e-4 of the
scale, at sizes of the case's own choosing.
"""

import importlib.util
import inspect
import sys
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from app.architectures.declaration import Declaration, declarations
from app.conversion.job import ConversionJob, ConversionOutcome
from app.conversion.pipeline import convert
from app.domain.architecture import Integers, Mask, Normal, Signature, Uniform
from app.domain.conversion import OnnxOptions, TorchScriptOptions
from app.domain.errors import RecastError

Inputs = dict[str, Tensor]
Judgement = list[str]


class NoTemplates:
    """A source that knows no template."""

    def find(self, key: str) -> None:
        return None


@dataclass(frozen=True)
class Case:
    """One architecture of a plug-in file, with what the file says of how to judge it."""

    path: Path
    declaration: Declaration
    module: ModuleType

    @property
    def signature(self) -> Signature:
        return self.declaration.signature({})

    def build(self) -> nn.Module:
        torch.manual_seed(zlib.crc32(self.declaration.name.encode()))
        return self.declaration.construct({})

    def judged_sizes(self) -> Mapping[str, list[int]]:
        plans: Mapping[str, Any] = getattr(self.module, "JUDGE", {})
        plan = plans.get(self.declaration.name, plans)
        return {
            axis.name: plan.get(
                axis.name, [1, 2, 3, 5, 8] if axis.name == "batch" else sorted({max(axis.minimum, 1), axis.sample})
            )
            for axis in self.signature.axes
        }


def cases_of(path: Path) -> list[Case]:
    spec = importlib.util.spec_from_file_location(f"field_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return [Case(path, declaration, module) for declaration in declarations(vars(module))]


@dataclass(frozen=True)
class Result:
    """``outcome`` of the conversion or the ``error`` that ended it, and what the judge has against the artifact."""

    outcome: ConversionOutcome | None
    error: RecastError | None
    wrong: Judgement

    @property
    def delivered(self) -> bool:
        """Whether a client would take the file for right."""
        return self.outcome is not None and self.outcome.report.verification.verdict in ("pass", "pass_with_notes")

    def __str__(self) -> str:
        if self.outcome is None:
            assert self.error is not None
            return f"{self.error.code}: {self.error.detail}"
        report = self.outcome.report
        found = "; ".join(f"{f.severity} {f.reason}: {f.detail}" for f in report.verification.findings)
        return f"{report.verification.verdict.value} by {report.export.exporter} [{found}] judged {self.wrong[:4]}"


def run(case: Case, options: OnnxOptions | TorchScriptOptions, directory: Path) -> Result:
    """Convert the case with weights of its own, in process, and judge what comes out."""
    module = prepared(case)
    torch.save(module.state_dict(), directory / "weights.pth")
    (directory / "plugins").mkdir()
    (directory / "plugins" / case.path.name).write_bytes(case.path.read_bytes())
    (directory / "work").mkdir()
    job = ConversionJob(
        conversion_id="00000000-0000-0000-0000-000000000001",
        checkpoint=directory / "weights.pth",
        checkpoint_sha256="0" * 64,
        architecture=case.declaration.name,
        options=options,
        work_dir=directory / "work",
        plugins_dir=directory / "plugins",
    )
    try:
        outcome = convert(job, lambda stage, share: None, NoTemplates())
    except RecastError as error:
        return Result(None, error, [])
    return Result(outcome, None, judge(case, module, directory / "work" / outcome.report.artifact.filename))


def prepared(case: Case) -> nn.Module:
    module = case.build()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point() and parameter.dim():
                spread = parameter.std() if parameter.numel() > 1 else torch.tensor(1.0)
                parameter.add_(torch.randn_like(parameter) * 0.05 * spread)
    if hasattr(case.module, "prepare"):
        case.module.prepare(module)
    return module.eval()


def judge(case: Case, module: nn.Module, artifact: Path) -> Judgement:
    """What is wrong with the artifact."""
    wrong = []
    try:
        answer = _onnx(artifact) if artifact.suffix == ".onnx" else _torchscript(artifact)
    except Exception as error:  # noqa: BLE001 - of a runtime
        return [f"does not load: {str(error).splitlines()[0][:200]}"]
    for words, inputs in _trials(case, module):
        fresh = _loaded(case, module)
        try:
            expected = _eager(fresh, case.signature, inputs)
        except Exception:  # noqa: BLE001 - the model does not take these sizes
            continue
        try:
            wide = _eager(_loaded(case, module).double(), case.signature, inputs, wide=True)
        except Exception:  # noqa: BLE001 - parts of it are fixed to float32
            wide = expected
        try:
            given = answer(case.signature, inputs)
        except Exception as error:  # noqa: BLE001 - of a runtime
            wrong.append(f"{words}: raises {str(error).splitlines()[0][:160]}")
            continue
        wrong += [f"{words}: {fault}" for fault in _faults(given, expected, wide)]
    return wrong


def _loaded(case: Case, module: nn.Module) -> nn.Module:
    fresh = case.build()
    fresh.load_state_dict(module.state_dict())
    return fresh.eval()


def _trials(case: Case, module: nn.Module) -> Iterator[tuple[str, Inputs]]:
    plan = case.judged_sizes()
    start = {axis.name: axis.sample for axis in case.signature.axes}
    sizes = [{**start, name: size} for name, wanted in plan.items() for size in wanted]
    generator = np.random.RandomState(0)
    sizes += [{name: int(generator.choice(wanted)) for name, wanted in plan.items()} for _ in range(8)]
    for number, chosen in enumerate(sizes):
        yield f"sizes {chosen}", _drawn(case.signature, chosen, 100 + number)
    if hasattr(case.module, "extra"):

        def draw(seed: int = 77, **chosen: int) -> Inputs:
            return _drawn(case.signature, {**start, **chosen}, seed)

        wanted = inspect.signature(case.module.extra).parameters
        for number, inputs in enumerate(case.module.extra(*(draw, module)[: len(wanted)])):
            yield f"extra {number}", inputs


def _drawn(signature: Signature, sizes: Mapping[str, int], seed: int) -> Inputs:
    random = torch.Generator().manual_seed(seed)
    inputs = {}
    for spec in signature.inputs:
        shape = [size if isinstance(size, int) else sizes[size] for size in spec.shape]
        match spec.distribution:
            case Normal(mean=mean, std=std):
                value = torch.randn(shape, generator=random) * std + mean
            case Uniform(low=low, high=high):
                value = torch.rand(shape, generator=random) * (high - low) + low
            case Integers(low=low, high=high):
                value = torch.randint(low, high + 1, shape, generator=random)
            case Mask():
                value = (torch.rand(shape, generator=random).cummin(-1).values > 0.1).float()
                value[..., :1] = 1
        inputs[spec.name] = value.to(getattr(torch, spec.dtype))
    return inputs


def _call(module: Any, signature: Signature, inputs: Inputs) -> list[Tensor]:
    values = [inputs[spec.name].clone() for spec in signature.inputs]
    with torch.no_grad():
        return list(_tensors(module(*values)))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors(part)
    elif value is not None:
        for part in value:
            yield from _tensors(part)


def _eager(module: nn.Module, signature: Signature, inputs: Inputs, *, wide: bool = False) -> list[Tensor]:
    if wide:
        inputs = {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if wide else before)
    try:
        return _call(module, signature, inputs)
    finally:
        torch.set_default_dtype(before)


def _onnx(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def answer(signature: Signature, inputs: Inputs) -> list[Tensor]:
        feed = {node.name: inputs[node.name].numpy() for node in session.get_inputs()}
        return [torch.from_numpy(np.asarray(value)) for value in session.run(None, feed)]

    return answer


def _torchscript(path: Path) -> Any:
    loaded = torch.jit.load(str(path))

    def answer(signature: Signature, inputs: Inputs) -> list[Tensor]:
        return _call(loaded, signature, inputs)

    return answer


def _faults(given: list[Tensor], expected: list[Tensor], wide: list[Tensor]) -> Iterator[str]:
    if len(given) != len(expected):
        yield f"{len(given)} outputs instead of {len(expected)}"
        return
    for number, (got, y32, y64) in enumerate(zip(given, expected, wide, strict=True)):
        fault = _fault(got, y32, y64 if y64.shape == y32.shape else y32)
        if fault is not None:
            yield f"output {number}: {fault}"


def _fault(got: Tensor, y32: Tensor, y64: Tensor) -> str | None:
    if got.shape != y32.shape or got.dtype != y32.dtype:
        return f"{tuple(got.shape)} {got.dtype} instead of {tuple(y32.shape)} {y32.dtype}"
    if not y32.is_floating_point():
        different = int((got != y32).sum())
        return f"{different} of {y32.numel()} differ" if different else None
    finite = torch.isfinite(y32)
    if not torch.equal(finite, torch.isfinite(got)):
        return "NaN or infinity in other places"
    if not bool(finite.any()):
        return None
    value, mine, exact = got[finite].double(), y32[finite].double(), y64[finite].double()
    scale = max(float(mine.abs().max()), 1e-30)
    rounding = max(float((mine - exact).abs().max()), 4 * 2.0**-24 * scale)
    error = float(torch.minimum((value - exact).abs().max(), (value - mine).abs().max()))
    return f"error {error:.3g} at scale {scale:.3g}" if error > max(30 * rounding, 1e-4 * scale) else None


def with_target(target: str, **more: Any) -> OnnxOptions | TorchScriptOptions:
    return replace_options(OnnxOptions() if target == "onnx" else TorchScriptOptions(), more)


def replace_options(
    options: OnnxOptions | TorchScriptOptions, more: Mapping[str, Any]
) -> OnnxOptions | TorchScriptOptions:
    return options.model_copy(update=dict(more))
