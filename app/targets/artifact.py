"""What an artifact is, read back from its bytes on disk: tensors, facts of its graph, and a runner."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Bytes = NDArray[np.uint8]


class MalformedFile(ValueError):
    """The file's bytes are not what its format demands."""


class ArtifactRefused(Exception):
    """The runtime would not load or run the artifact. Its message is the runtime's."""


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """One tensor of a file. ``data`` are its raw little-endian bytes in row-major order, read-only.

    ``name`` is its place: an initializer's name, a Constant's output, a node's first output with the attribute, or the
    dotted path of an attribute; ``aliases`` are further places of the same memory. ``dtype`` is None for what torch has
    no dtype of (strings, elements below a byte), and for bytes that nothing gives a type.
    """

    name: str
    dims: tuple[int, ...]
    dtype: torch.dtype | None
    data: Bytes
    aliases: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        return int(self.data.size)


@dataclass(frozen=True)
class GraphConstants:
    """The constants that an artifact computes with, as far as they are audited."""

    norms: tuple[tuple[str, float], ...] = ()
    """(kind as torch names it, epsilon) of each normalisation operator."""
    hidden: tuple[float, ...] = ()
    """Small constants added before a square root: epsilons of decomposed normalisations."""
    erf: int = 0
    tanh_gelu: int = 0
    bounds: tuple[float, ...] = ()
    """Constant bounds of clamps."""
    straight: bool = True
    """Whether the graph has neither loops nor branches nor functions of its own."""


@dataclass(frozen=True)
class GraphFacts:
    """What a file says of its own graph; None where the format says nothing of the kind."""

    constants: GraphConstants | None
    training: Sequence[str] = ()
    """Nodes or modules that behave as in training."""
    opset: int | None = None
    ir_version: int | None = None
    operators: frozenset[str] = frozenset()
    """Names of those of the default set that occur."""
    external_data: bool = False
    """Whether tensors lie in another file."""
    axes: Mapping[str, tuple[int | str, ...]] | None = None
    """Each input's shape as written: sizes, and names of symbolic axes ("?" where unnamed)."""


@dataclass(frozen=True)
class ModuleValue:
    """What one call of a leaf module gave in eager, and what it was given."""

    module: str
    kind: str
    inputs: tuple[Tensor, ...]
    output: Tensor


class Runner(Protocol):
    """An artifact ready to run. Inputs are CPU tensors by name; outputs come by name, in the artifact's order."""

    @property
    def names_outputs(self) -> bool:
        """Whether the file names its outputs; else they are matched by position."""

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Raises ArtifactRefused when the runtime fails on these inputs."""

    def facts(self) -> GraphFacts:
        """What the file says of its graph."""

    def intermediates(self, values: Sequence[ModuleValue], inputs: Mapping[str, Tensor]) -> Sequence[Sequence[Tensor]]:
        """For each value, what the artifact computes on ``inputs`` that may be the same. Raises ArtifactRefused."""


class Evaluator(Protocol):
    """A second runtime, independent of the first and slow: what both give alike, the file says."""

    name: str
    budget: float
    """Operations (multiply-adds × 2) up to which it is worth waiting for."""

    def run(self, path: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs by name. Raises ArtifactRefused, and what the runtime raises."""
