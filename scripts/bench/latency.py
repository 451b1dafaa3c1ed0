"""How fast the api answers while conversions run: GET /v1/conversions/{id}, p50 and p99.

Four conversions run at the same time; the status of one of them is asked for, one request after the other, until all
are finished. The same number of requests to an idle service is the comparison.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import httpx
from service import running_service

from app.architectures.calibration import save_checkpoint
from app.architectures.registry import load_registry

ARCHITECTURE = "torchvision/resnet50"
CONVERSIONS = 4


def submit(client: httpx.Client, checkpoint: Path) -> str:
    with checkpoint.open("rb") as file:
        answer = client.post(
            "/v1/conversions",
            files={"file": (checkpoint.name, file)},
            data={"architecture": ARCHITECTURE, "target": "onnx", "options": '{"verification": "full"}'},
        )
    answer.raise_for_status()
    return str(answer.json()["id"])


def ask(client: httpx.Client, conversion: str, times: list[float]) -> str:
    started = time.perf_counter()
    answer = client.get(f"/v1/conversions/{conversion}")
    times.append(time.perf_counter() - started)
    answer.raise_for_status()
    time.sleep(0.01)
    return str(answer.json()["state"])


def while_running(client: httpx.Client, conversions: list[str]) -> list[float]:
    times: list[float] = []
    waiting = list(conversions)
    while waiting:
        if ask(client, waiting[-1], times) not in ("queued", "running"):
            waiting.pop()
    return times


def percentile(times: list[float], share: float) -> float:
    return statistics.quantiles(times, n=1000, method="inclusive")[round(share * 1000) - 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    registry = load_registry()
    with tempfile.TemporaryDirectory(prefix="recast-bench-") as directory, running_service(children="4") as client:
        checkpoints = [
            save_checkpoint(registry, ARCHITECTURE, {}, Path(directory) / f"{seed}.pth", seed)
            for seed in range(CONVERSIONS)
        ]
        conversions = [submit(client, checkpoint) for checkpoint in checkpoints]
        busy = while_running(client, conversions)
        idle: list[float] = []
        for _ in range(len(busy)):
            ask(client, conversions[0], idle)
    figures = {
        f"{state}_{name}_ms": 1000 * percentile(times, share)
        for state, times in (("busy", busy), ("idle", idle))
        for name, share in (("p50", 0.5), ("p99", 0.99))
    }
    figures["requests"] = len(busy)
    print("| | p50 ms | p99 ms |\n|---|---|---|")
    for state in ("busy", "idle"):
        print(f"| {state} | {figures[f'{state}_p50_ms']:.1f} | {figures[f'{state}_p99_ms']:.1f} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
