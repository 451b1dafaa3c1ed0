"""Running an artifact in the model's own dtypes, whatever it was asked to take and give."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from app.conversion.verification.subject import Subject
from app.domain.conversion import IoDType
from app.targets.artifact import ArtifactRefused, Evaluator, GraphFacts, ModuleValue, Runner


def opened(subject: Subject, *, threads: int, optimise: bool = True, repack: bool = True) -> Runner:
    """The artifact in its runtime (targets/reader.py). Raises ArtifactRefused."""
    runner = subject.reader.open(subject.artifact, subject, threads=threads, optimise=optimise, repack=repack)
    return runner if subject.io_dtype is None else Narrow(runner, subject.io_dtype)


def evaluated(evaluator: Evaluator, subject: Subject, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a second runtime makes of it. Raises as ``evaluator.run``."""
    outputs = evaluator.run(subject.artifact, narrowed(inputs, subject.io_dtype))
    return outputs if subject.io_dtype is None else _widened(outputs, subject.io_dtype)


def narrowed(inputs: Mapping[str, Tensor], dtype: IoDType | None) -> Mapping[str, Tensor]:
    """Values of the model as the artifact takes them."""
    if dtype is None:
        return inputs
    kind = getattr(torch, dtype)
    return {name: value.to(kind) if value.dtype == torch.float32 else value for name, value in inputs.items()}


def _widened(outputs: Mapping[str, Tensor], dtype: IoDType) -> dict[str, Tensor]:
    """Every value as the model gives it. Raises ArtifactRefused where one has not the dtype that was asked for."""
    wide = sorted(name for name, value in outputs.items() if value.dtype == torch.float32)
    if wide:
        raise ArtifactRefused(f"it gives float32, and {dtype} was asked for: {', '.join(wide)}")
    kind = getattr(torch, dtype)
    return {name: value.float() if value.dtype == kind else value for name, value in outputs.items()}


@dataclass(frozen=True)
class Narrow:
    """A runner of an artifact whose inputs and outputs of float32 stand in another dtype."""

    runner: Runner
    dtype: IoDType

    @property
    def names_outputs(self) -> bool:
        return self.runner.names_outputs

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return _widened(self.runner.run(narrowed(inputs, self.dtype)), self.dtype)

    def facts(self) -> GraphFacts:
        return self.runner.facts()

    def intermediates(self, values: Sequence[ModuleValue], inputs: Mapping[str, Tensor]) -> Sequence[Sequence[Tensor]]:
        return self.runner.intermediates(values, narrowed(inputs, self.dtype))
