"""What a user would pick instead of Recast, each in an environment of its own, made for the run and deleted after.

An environment takes 3 to 6 GB, so there is one at a time. What an export needs beside it (the model's directory as its
library publishes it) is prepared before, and not charged; loading, exporting and the tool's own check are.
"""

import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PREPARE = """
import sys, torch
from transformers import BertConfig, BertModel
model = BertModel(BertConfig())
model.load_state_dict(torch.load(sys.argv[1], weights_only=True))
model.save_pretrained(sys.argv[2])
"""
"""Writes the directory of a checkpoint of transformers/bert, in the environment's own version of transformers."""


@dataclass(frozen=True)
class Peer:
    """A tool: what is installed for it, and its command; {model} and {output} are directories."""

    name: str
    requirements: tuple[str, ...]
    command: tuple[str, ...]


PEERS = (
    Peer(
        "optimum-onnx",
        ("optimum-onnx[onnxruntime]==0.1.*", "transformers==4.57.*"),
        ("optimum-cli", "export", "onnx", "--model", "{model}", "--task", "feature-extraction", "{output}"),
    ),
    Peer(
        "olive",
        ("olive-ai", "transformers==4.57.*", "onnxruntime", "onnxscript"),
        ("olive", "capture-onnx-graph", "--model_name_or_path", "{model}", "--output_path", "{output}"),
    ),
)


def peers_seconds(checkpoint: Path, scratch: Path, runs: int) -> dict[str, float]:
    """Seconds of each peer for a checkpoint of transformers/bert, by its name; infinite where it fails.

    The least of ``runs``: a tool's first run also compiles its own modules.
    """
    found = {}
    for peer in PEERS:
        with _environment(peer, scratch) as programs:
            found[peer.name] = math.inf if programs is None else _measured(peer, programs, checkpoint, scratch, runs)
    return found


@contextmanager
def _environment(peer: Peer, scratch: Path) -> Iterator[Path | None]:
    """The directory of its programs; None where it cannot be installed."""
    with tempfile.TemporaryDirectory(prefix=f"{peer.name}-", dir=scratch) as directory:
        subprocess.run([sys.executable, "-m", "venv", directory], check=True)
        programs = Path(directory, "bin")
        install = [str(programs / "python"), "-m", "pip", "install", "--quiet", *peer.requirements]
        done = subprocess.run(install, check=False, capture_output=True, text=True)
        if done.returncode:
            _tell(f"{peer.name} cannot be installed", done.stderr)
        yield programs if done.returncode == 0 else None


def _measured(peer: Peer, programs: Path, checkpoint: Path, scratch: Path, runs: int) -> float:
    model, output = scratch / "peer-model", scratch / "peer-output"
    prepare = [str(programs / "python"), "-c", PREPARE, str(checkpoint), str(model)]
    subprocess.run(prepare, check=True, capture_output=True)
    program, *arguments = (part.format(model=model, output=output) for part in peer.command)
    seconds = []
    for _ in range(runs):
        shutil.rmtree(output, ignore_errors=True)
        began = time.perf_counter()
        done = subprocess.run([str(programs / program), *arguments], check=False, capture_output=True, text=True)
        if done.returncode:
            _tell(f"{peer.name} failed", done.stderr)
            return math.inf
        seconds.append(time.perf_counter() - began)
    shutil.rmtree(model)
    shutil.rmtree(output, ignore_errors=True)
    return min(seconds)


def _tell(what: str, said: str) -> None:
    print(f"    {what}: {(said.strip().splitlines() or ['it said nothing'])[-1]}", file=sys.stderr, flush=True)
