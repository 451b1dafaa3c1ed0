"""Conversions per minute with 1 and 2 children and for a queue of mixed jobs, or with --fleet on 1, 2 and 3 machines of
one child each; the api's latency under that load."""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
from latency import percentile
from service import START_LIMIT, running_service

from app.architectures.calibration import save_checkpoint
from app.architectures.registry import Registry, load_registry
from scripts.fleet import Fleet

MIXED = (
    ("torchvision/resnet18", "onnx"),
    ("torchvision/mobilenet_v3_small", "onnx"),
    ("torchvision/squeezenet1_1", "torchscript"),
    ("torchvision/shufflenet_v2_x0_5", "onnx"),
    ("timm/vit_tiny_patch16_224", "onnx"),
)


def upload_all(client: httpx.Client, registry: Registry, directory: Path, variants: int) -> list[tuple[str, str, str]]:
    """(architecture, target, checkpoint sha256) of every job; ``variants`` weights of each architecture."""
    jobs = []
    for seed in range(variants):
        for architecture, target in MIXED:
            path = save_checkpoint(registry, architecture, {}, directory / "weights.pth", seed)
            with path.open("rb") as file:
                answer = client.post("/v1/checkpoints", files={"file": ("weights.pth", file)})
            answer.raise_for_status()
            jobs.append((architecture, target, str(answer.json()["sha256"])))
    return jobs


def drain(client: httpx.Client, jobs: list[tuple[str, str, str]]) -> tuple[float, list[float]]:
    """Seconds until every job is finished, and the seconds of status requests meanwhile."""
    started = time.perf_counter()
    waiting = [submit(client, *job) for job in jobs]
    times: list[float] = []
    while waiting:
        asked = time.perf_counter()
        conversion = client.get(f"/v1/conversions/{waiting[0]}").json()
        times.append(time.perf_counter() - asked)
        if conversion["state"] in ("queued", "running"):
            time.sleep(0.02)
            continue
        if conversion["state"] != "succeeded":
            raise SystemExit(json.dumps(conversion, indent=1)[:3000])
        waiting.pop(0)
    return time.perf_counter() - started, times


def submit(client: httpx.Client, architecture: str, target: str, checkpoint: str) -> str:
    body: dict[str, Any] = {"architecture": architecture, "target": target, "checkpoint": checkpoint, "force": True}
    answer = client.post("/v1/conversions", json=body)
    answer.raise_for_status()
    return str(answer.json()["id"])


@contextmanager
def running_fleet(workers: int) -> Iterator[httpx.Client]:
    """A client of a fresh fleet: one api, and so many machines that run one child each."""
    with tempfile.TemporaryDirectory(prefix="recast-bench-") as directory:
        Path(directory).chmod(0o755)  # the database's system user passes through
        fleet = Fleet(Path(directory), apis=1, workers=workers, settings={"RECAST_CHILDREN": "1"}, restarting=False)
        try:
            fleet.start()
            fleet.until_ready(START_LIMIT)
            with httpx.Client(base_url=fleet.urls[0], timeout=900) as client:
                yield client
        finally:
            fleet.end()


def measure(
    running: AbstractContextManager[httpx.Client], registry: Registry, directory: Path, count: int
) -> dict[str, float]:
    with running as client:
        jobs = upload_all(client, registry, directory, variants=3)
        drain(client, jobs[: len(MIXED)])
        queue = (jobs * (count // len(jobs) + 1))[:count]
        seconds, times = drain(client, queue)
    return {
        "jobs": count,
        "per_minute": 60 * count / seconds,
        "status_p50_ms": 1000 * percentile(times, 0.5),
        "status_p99_ms": 1000 * percentile(times, 0.99),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--jobs", type=int, default=200, help="length of the mixed queue")
    parser.add_argument("--fleet", action="store_true", help="machines of one child each, on a database and a store")
    arguments = parser.parse_args()
    registry = load_registry()
    if arguments.fleet:
        running = {f"machines: {n}": (running_fleet(n), arguments.jobs) for n in (1, 2, 3)}
    else:
        one, two = running_service(children="1"), running_service(children="2")
        long = running_service(children="2")
        running = {"1 child": (one, 40), "2 children": (two, 40), "2 children, long queue": (long, arguments.jobs)}
    with tempfile.TemporaryDirectory(prefix="recast-bench-") as directory:
        results = {name: measure(of, registry, Path(directory), jobs) for name, (of, jobs) in running.items()}
    print("| | jobs | per minute | status p50 ms | status p99 ms |\n|---|---|---|---|---|")
    for name, r in results.items():
        print(f"| {name} | {r['jobs']} | {r['per_minute']:.0f} | {r['status_p50_ms']:.1f} | {r['status_p99_ms']:.1f} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
