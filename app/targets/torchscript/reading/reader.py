"""The reading half of target ``torchscript``."""

from collections.abc import Sequence
from pathlib import Path

from app.architectures.calling import EagerModel
from app.targets.artifact import StoredTensor
from app.targets.reader import Reader
from app.targets.torchscript.reading import tensors
from app.targets.torchscript.reading.runtime import TorchScriptRuntime


class TorchScriptReader:
    translated = False
    """The file is the captured program."""
    evaluators = ()
    exporting = None

    def complaint(self, path: Path) -> str | None:
        return None

    def tensors(self, path: Path) -> Sequence[StoredTensor]:
        return tensors.read_torchscript(path)

    def open(
        self,
        path: Path,
        model: EagerModel,
        *,
        threads: int,
        optimise: bool = True,
        repack: bool = True,
    ) -> TorchScriptRuntime:
        return TorchScriptRuntime(path, model, optimise=optimise)


READER: Reader = TorchScriptReader()
