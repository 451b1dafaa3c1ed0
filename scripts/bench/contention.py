"""How much longer a repeat conversion takes beside other work than its fair share of the processors explains.

With BUSY processes at work on every core, each of a conversion's threads gets 1 / (BUSY + 1) of its core, so BUSY + 1
times the undisturbed seconds are fair. What goes beyond is lost by threads that wait for each other.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from convert import MODELS, convert
from service import running_service

from app.architectures.calibration import save_checkpoint
from app.architectures.registry import load_registry
from app.processors import available_cores

MEASURED = ("mobilenet_v3_small", "resnet18", "vit_b_16")
BUSY = 3
"""Processes for each core."""
REPEATS = 3
SPIN = "while True: sum(range(10_000))"


@contextmanager
def busy_cores() -> Iterator[None]:
    """Inside, every core has BUSY processes that never wait."""
    processes = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(BUSY * available_cores())]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure(client: httpx.Client, checkpoints: list[Path], architecture: str) -> dict[str, float]:
    """Medians of REPEATS conversions with other weights each, alone and beside the busy processes."""
    waiting = iter(checkpoints)
    convert(client, architecture, next(waiting))
    alone = statistics.median(convert(client, architecture, next(waiting))[0] for _ in range(REPEATS))
    with busy_cores():
        beside = statistics.median(convert(client, architecture, next(waiting))[0] for _ in range(REPEATS))
    return {"alone_s": alone, "beside_s": beside, "over_fair_share": beside / (alone * (BUSY + 1))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MEASURED, metavar="MODEL", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="the figures there, or printed alone")
    arguments = parser.parse_args()
    registry, results = load_registry(), {}
    with tempfile.TemporaryDirectory(prefix="recast-bench-") as directory, running_service(children="1") as client:
        for model in arguments.models:
            names = [Path(directory) / f"{model}-{seed}.pth" for seed in range(1 + 2 * REPEATS)]
            checkpoints = [save_checkpoint(registry, MODELS[model], {}, path, seed) for seed, path in enumerate(names)]
            results[model] = measure(client, checkpoints, MODELS[model])
            for checkpoint in checkpoints:
                checkpoint.unlink()
    if arguments.json == "-":
        print(json.dumps(results, indent=1))
        return
    print("| model | alone s | beside s | over fair share |\n|---|---|---|---|")
    for model, r in results.items():
        print(f"| {model} | {r['alone_s']:.2f} | {r['beside_s']:.2f} | {r['over_fair_share']:.2f} |")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
