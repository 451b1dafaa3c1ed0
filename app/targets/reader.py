"""The reading half of a target: reads, runs and inspects an artifact from its bytes on disk."""

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from app.architectures.calling import EagerModel
from app.domain.conversion import TargetName
from app.targets.artifact import Evaluator, Runner, StoredTensor


class Reader(Protocol):
    """Reads artifacts back from disk; believes nothing that the writer said."""

    @property
    def translated(self) -> bool:
        """Whether the file is a translation of what was captured. If not, what is wrong in it was captured wrongly."""

    @property
    def evaluators(self) -> Sequence[Evaluator]:
        """Further runtimes, independent of the first and of each other."""

    @property
    def exporting(self) -> Callable[[Callable[..., Any]], Callable[..., Any]] | None:
        """Makes a function in which a module sees what it sees while it is exported, such as that
        ``torch.onnx.is_in_onnx_export()``; None where exporters show it nothing of the kind."""

    def complaint(self, path: Path) -> str | None:
        """What a checker of the format says against the file, if anything."""

    def tensors(self, path: Path) -> Sequence[StoredTensor]:
        """Every tensor of the file, memory-mapped. Raises MalformedFile."""

    def open(
        self,
        path: Path,
        model: EagerModel,
        *,
        threads: int,
        optimise: bool = True,
        repack: bool = True,
    ) -> Runner:
        """The artifact in its runtime; ``repack``: it will run so often that weights may be copied for speed.

        ``module`` is the eager module it was made from, for how arguments are bound. Raises ArtifactRefused.
        """


def reader_of(target: TargetName) -> Reader:
    """The reading half of that target."""
    return cast(Reader, import_module(f"app.targets.{target}.reading.reader").READER)
