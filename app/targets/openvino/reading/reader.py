"""The reading half of target ``openvino``."""

from collections.abc import Sequence
from pathlib import Path

from torch.onnx._internal.exporter import _flags

from app.architectures.calling import EagerModel
from app.targets.artifact import StoredTensor
from app.targets.openvino.reading.ir import OpenVinoFile
from app.targets.openvino.reading.runtime import OpenVinoRuntime
from app.targets.reader import Reader


class OpenVinoReader:
    translated = True
    evaluators = ()
    exporting = staticmethod(_flags.set_onnx_exporting_flag)
    """torch.onnx.is_in_onnx_export() is true inside: the graph is captured as that of ONNX is."""

    def complaint(self, path: Path) -> str | None:
        return None

    def tensors(self, path: Path) -> Sequence[StoredTensor]:
        return OpenVinoFile(path).tensors

    def open(
        self,
        path: Path,
        model: EagerModel,
        *,
        threads: int,
        optimise: bool = True,
        repack: bool = True,
    ) -> OpenVinoRuntime:
        return OpenVinoRuntime(path, model.signature, threads=threads)


READER: Reader = OpenVinoReader()
