"""The reading half of target ``pt2``."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch._export.utils import _compiling_state_context

from app.architectures.calling import EagerModel
from app.targets.artifact import StoredTensor
from app.targets.pt2.reading.archive import Pt2Archive
from app.targets.pt2.reading.runtime import Pt2Runtime
from app.targets.reader import Reader


class Pt2Reader:
    translated = False
    """The file is the captured program."""
    evaluators = ()

    @staticmethod
    def exporting(function: Callable[..., Any]) -> Callable[..., Any]:
        """torch.compiler.is_exporting() is true inside."""
        decorated: Callable[..., Any] = _compiling_state_context()(function)
        return decorated

    def complaint(self, path: Path) -> str | None:
        return None

    def tensors(self, path: Path) -> Sequence[StoredTensor]:
        return tuple(Pt2Archive(path).tensors())

    def open(
        self,
        path: Path,
        model: EagerModel,
        *,
        threads: int,
        optimise: bool = True,
        repack: bool = True,
    ) -> Pt2Runtime:
        return Pt2Runtime(path, model.signature)


READER: Reader = Pt2Reader()
