"""Artifacts loaded back from their final bytes and run, in a session that shares nothing with the exporter."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import onnxruntime
import torch
from torch import Tensor, nn

from app.architectures.calling import bind, flatten
from app.domain.architecture import Signature
from app.domain.conversion import TargetName


class ArtifactRefused(Exception):
    """The runtime would not load or run the artifact. Its message is the runtime's."""


class Runner(Protocol):
    """An artifact ready to run. Inputs are CPU tensors by name; outputs come by name, in the artifact's order."""

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Raises ArtifactRefused when the runtime fails on these inputs."""


class OnnxRuntime:
    """An onnxruntime session on the CPU provider.

    The memory arena is off: it keeps memory that is never given back. ``repack`` is onnxruntime's default, a second
    copy of many weights in the order its kernels like, by prepacking and by its layout optimisations. It pays only
    where a session runs often. The session of vit_b_16 (346 MB) takes 0.2 s and 170 MB more, and 0.012 s less for each
    run of two images; that of resnet50 0.03 s and 20 to 50 MB more, and 0.01 s less.
    """

    def __init__(self, path: Path, *, optimise: bool = True, repack: bool = True, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # a refusal is reported in full by the exception
        options.enable_cpu_mem_arena = False
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.disable_prepacking", "0" if repack else "1")
        levels = onnxruntime.GraphOptimizationLevel
        optimised = levels.ORT_ENABLE_ALL if repack else levels.ORT_ENABLE_EXTENDED
        options.graph_optimization_level = optimised if optimise else levels.ORT_DISABLE_ALL
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as refusal:
            raise ArtifactRefused(first_lines(refusal)) from refusal
        self.input_names = tuple(node.name for node in self._session.get_inputs())
        self.output_names = tuple(node.name for node in self._session.get_outputs())

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # An exporter may drop an input that the model does not use.
        feed = {name: inputs[name].contiguous().numpy() for name in self.input_names if name in inputs}
        try:
            values = self._session.run(None, feed)
        except Exception as refusal:
            raise ArtifactRefused(first_lines(refusal)) from refusal
        return {name: torch.from_numpy(value) for name, value in zip(self.output_names, values, strict=True)}


class TorchScriptRuntime:
    """A TorchScript file loaded with torch.jit. Arguments are bound as for the eager module it came from."""

    def __init__(self, path: Path, eager: nn.Module, signature: Signature, *, optimise: bool = True) -> None:
        self._eager, self._signature, self._optimise = eager, signature, optimise
        try:
            self.loaded = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        except Exception as refusal:
            raise ArtifactRefused(first_lines(refusal)) from refusal

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        cloned = {name: value.clone() for name, value in inputs.items()}
        args, kwargs = bind(self._eager, self._signature, cloned)
        try:
            with torch.inference_mode(), torch.jit.optimized_execution(self._optimise):  # type: ignore[attr-defined]
                return flatten(self.loaded(*args, **kwargs), self._signature)
        except Exception as refusal:
            raise ArtifactRefused(first_lines(refusal)) from refusal


def open_artifact(
    target: TargetName,
    path: Path,
    eager: nn.Module,
    signature: Signature,
    *,
    threads: int,
    optimise: bool = True,
    repack: bool = True,
) -> Runner:
    """The artifact in the runtime of its target. ``repack`` is told to onnxruntime only. Raises ArtifactRefused."""
    if target == "onnx":
        return OnnxRuntime(path, optimise=optimise, repack=repack, threads=threads)
    return TorchScriptRuntime(path, eager, signature, optimise=optimise)


def first_lines(error: BaseException, limit: int = 600) -> str:
    """The beginning of an error's message, enough to act on."""
    text = str(error).strip() or type(error).__name__
    return text if len(text) <= limit else text[:limit] + " …"
