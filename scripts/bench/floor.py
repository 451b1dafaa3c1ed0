"""The floor: what no verified conversion can avoid, measured in a warm process.

python scripts/bench/floor.py MODEL CHECKPOINT ARTIFACT --threads N [--oracle]

Reads the checkpoint's bytes (with their sha256), runs the module once in fp32 (and with --oracle once in fp64), loads
the artifact in its own runtime, which its suffix says, runs it, and writes its bytes (with their sha256, synced to
disk). Prints seconds.
With --eager-only it prints the peak MiB of a process that only loads the module and runs it in fp32.
"""

import argparse
import copy
import hashlib
import os
import resource
import tempfile
import time
from pathlib import Path

import onnxruntime
import torch
from cold_export import build
from safetensors.torch import load_file
from torch import nn


def loaded(model: str, checkpoint: str) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    module, sample = build(model)
    module.load_state_dict(torch.load(checkpoint, weights_only=True, mmap=True), assign=True)
    return module.eval(), sample


def widened(sample: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in sample.items()}


def write_synced(content: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        hashlib.sha256(content)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def floor(module: nn.Module, sample: dict[str, torch.Tensor], arguments: argparse.Namespace) -> float:
    checkpoint, artifact, threads = arguments.checkpoint, arguments.artifact, arguments.threads
    wide = copy.deepcopy(module).double() if arguments.oracle else None
    with open(artifact, "rb") as file:
        content = file.read()
    started = time.perf_counter()
    with open(checkpoint, "rb") as file:
        hashlib.file_digest(file, "sha256")
    with torch.inference_mode():
        module(**sample)
        if wide is not None:
            wide(**widened(sample))
        run_artifact(Path(artifact), module, list(sample.values()), threads)
    write_synced(content)
    return time.perf_counter() - started


def run_artifact(path: Path, module: nn.Module, inputs: list[torch.Tensor], threads: int) -> None:
    """Load it in its own runtime and run it. A file of weights alone is run by the module."""
    match path.suffix:
        case ".onnx":
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            names = [value.name for value in session.get_inputs()]
            session.run(None, dict(zip(names, (tensor.numpy() for tensor in inputs), strict=True)))
        case ".pt":
            torch.jit.load(str(path))(*inputs)  # type: ignore[no-untyped-call]
        case ".pt2":
            torch.export.load(str(path)).module()(*inputs)
        case ".safetensors":
            module.load_state_dict(load_file(path), assign=True)
            module(*inputs)
        case other:
            raise SystemExit(f"No runtime for {other} here.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("checkpoint")
    parser.add_argument("artifact", nargs="?")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--oracle", action="store_true", help="the gate cannot do without it for this model")
    parser.add_argument("--eager-only", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    module, sample = loaded(arguments.model, arguments.checkpoint)
    if arguments.eager_only:
        with torch.inference_mode():
            module(**sample)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    floor(module, sample, arguments)
    print(min(floor(module, sample, arguments) for _ in range(3)))


if __name__ == "__main__":
    main()
