"""The reading half of target ``onnx``."""

from collections.abc import Sequence
from pathlib import Path

from torch.onnx._internal.exporter import _flags

from app.architectures.calling import EagerModel
from app.targets.artifact import StoredTensor
from app.targets.onnx.reading import graph, tensors
from app.targets.onnx.reading.evaluators import OnnxEvaluator, TractEvaluator
from app.targets.onnx.reading.runtime import OnnxRuntime
from app.targets.reader import Reader


class OnnxReader:
    translated = True
    evaluators = (OnnxEvaluator(), TractEvaluator())
    exporting = staticmethod(_flags.set_onnx_exporting_flag)
    """torch.onnx.is_in_onnx_export() is true inside."""

    def complaint(self, path: Path) -> str | None:
        return graph.check_file(path)

    def tensors(self, path: Path) -> Sequence[StoredTensor]:
        return tensors.read_onnx(path)

    def open(
        self,
        path: Path,
        model: EagerModel,
        *,
        threads: int,
        optimise: bool = True,
        repack: bool = True,
    ) -> OnnxRuntime:
        return OnnxRuntime(path, optimise=optimise, repack=repack, threads=threads)


READER: Reader = OnnxReader()
