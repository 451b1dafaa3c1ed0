"""How fast the api answers while conversions run, p50 and p99.

Without a mode: four conversions run at the same time; the status of one of them is asked for, one request after the
other, until all are finished. The same number of requests to an idle service is the comparison.

With --readers: POLLERS clients poll and FOLLOWERS follow events while two conversions run, beside a bare FastAPI
handler that makes one indexed query on the same database (bare_api.py), in the same seconds.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
from many_readers import Readings, read_meanwhile
from service import free_port, running_service

from app.architectures.calibration import save_checkpoint
from app.architectures.registry import load_registry
from app.database.embedded import EmbeddedPostgres

ARCHITECTURE = "torchvision/resnet50"
CONVERSIONS = 4
POLLERS, FOLLOWERS, AT_ONCE = 200, 50, 2
LEAST_SECONDS = 60.0
"""Conversions are sent again until so much time has passed: a p99 needs some thousand answers."""


def submit(client: httpx.Client, checkpoint: Path) -> str:
    with checkpoint.open("rb") as file:
        answer = client.post(
            "/v1/conversions",
            files={"file": (checkpoint.name, file)},
            data={
                "architecture": ARCHITECTURE,
                "target": "onnx",
                "options": '{"verification": "full"}',
                "force": "true",
            },
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


def one_reader(directory: Path) -> dict[str, float]:
    """Milliseconds of one request after the other, while CONVERSIONS run and while none does."""
    registry = load_registry()
    with running_service(children="4") as client:
        checkpoints = [
            save_checkpoint(registry, ARCHITECTURE, {}, directory / f"{seed}.pth", seed) for seed in range(CONVERSIONS)
        ]
        conversions = [submit(client, checkpoint) for checkpoint in checkpoints]
        busy = while_running(client, conversions)
        idle: list[float] = []
        for _ in range(len(busy)):
            ask(client, conversions[0], idle)
    return {**in_milliseconds({"busy": busy, "idle": idle}), "requests": len(busy)}


def many_readers(directory: Path, pollers: int, followers: int) -> dict[str, float]:
    """Milliseconds of the answers to many clients, and of the bare handler beside them; errors."""
    registry = load_registry()
    checkpoints = [
        save_checkpoint(registry, ARCHITECTURE, {}, directory / f"{seed}.pth", seed) for seed in range(AT_ONCE)
    ]
    with (
        EmbeddedPostgres(directory / "database") as postgres,
        running_service(database_url=postgres.url, children=str(AT_ONCE)) as client,
        bare_handler(postgres.url) as bare,
    ):
        readings = asyncio.run(read_while_converting(client, checkpoints, bare, pollers, followers))
    for error in readings.errors[:20]:
        print(error, file=sys.stderr)
    figures = in_milliseconds(readings.seconds)
    over = {
        f"{what}_p99_over_bare": figures[f"{what}_p99_ms"] / figures["bare_p99_ms"] for what in ("conversion", "list")
    }
    requests = sum(map(len, readings.seconds.values()))
    return {**figures, **over, "requests": requests, "events": readings.events, "errors": len(readings.errors)}


async def read_while_converting(
    client: httpx.Client, checkpoints: list[Path], bare: int, pollers: int, followers: int
) -> Readings:
    conversions = [submit(client, checkpoint) for checkpoint in checkpoints]
    over = asyncio.Event()
    port = client.base_url.port
    assert port is not None
    reading = asyncio.create_task(
        read_meanwhile(port, bare, conversions, pollers=pollers, followers=followers, over=over)
    )
    ends = time.monotonic() + LEAST_SECONDS
    try:
        await asyncio.to_thread(partial(keep_converting, client, checkpoints, conversions, ends))
    finally:
        over.set()
    return await reading


def keep_converting(client: httpx.Client, checkpoints: list[Path], first: list[str], ends: float) -> None:
    """Until ``ends``, and until what then runs is finished."""
    waiting = dict(zip(first, checkpoints, strict=True))
    while waiting:
        for id, checkpoint in list(waiting.items()):
            if client.get(f"/v1/conversions/{id}").json()["state"] not in ("queued", "running"):
                del waiting[id]
                if time.monotonic() < ends:
                    waiting[submit(client, checkpoint)] = checkpoint
        time.sleep(0.5)


@contextmanager
def bare_handler(database_url: str) -> Iterator[int]:
    """The port of a process of bare_api.py."""
    port = free_port()
    command = [sys.executable, str(Path(__file__).with_name("bare_api.py")), str(port)]
    process = subprocess.Popen(command, env={**os.environ, "RECAST_DATABASE_URL": database_url})
    try:
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/none")
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait()


def in_milliseconds(seconds: dict[str, list[float]]) -> dict[str, float]:
    return {
        f"{what}_{name}_ms": 1000 * percentile(times, share)
        for what, times in seconds.items()
        if len(times) > 1
        for name, share in (("p50", 0.5), ("p99", 0.99))
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readers", action="store_true", help="many clients, beside a bare handler")
    parser.add_argument("--pollers", type=int, default=POLLERS)
    parser.add_argument("--followers", type=int, default=FOLLOWERS)
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="recast-bench-") as directory:
        if arguments.readers:
            figures = many_readers(Path(directory), arguments.pollers, arguments.followers)
        else:
            figures = one_reader(Path(directory))
    print("| | p50 ms | p99 ms |\n|---|---|---|")
    for what in (name.removesuffix("_p50_ms") for name in figures if name.endswith("_p50_ms")):
        print(f"| {what} | {figures[f'{what}_p50_ms']:.1f} | {figures[f'{what}_p99_ms']:.1f} |")
    for name, value in figures.items():
        if not name.endswith("_ms"):
            print(f"{name}: {value:.2f}" if isinstance(value, float) else f"{name}: {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
