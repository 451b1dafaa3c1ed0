"""Send the hostile corpus to a running service, and write what it answers and what that costs: docs/hostile-inputs.md.

The exit status is 1 where an answer is not the designed one, something was run, a part of the service died, or the
api's memory grew.
"""

import argparse
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from app.jobs.usage import private_memory
from tests.hostile.asks import hostile_asks
from tests.hostile.files import HostileFile, hostile_files
from tests.service.running import Service, free_port

PAGE = Path(__file__).parents[1] / "docs" / "hostile-inputs.md"
SAMPLE_SECONDS = 0.02
MEBI = 1 << 20
ADMITTED_STATUSES = (503, 507)
"""Of 5xx, those that the api documents."""

INTRODUCTION = """\
# Hostile inputs

What `scripts/hostile-table` sent to a running service, and what it answered. Files are uploaded and read; the rest is
asked of a conversion. Memory is in MiB: what the api had at most meanwhile, and what the process that read the input
took for itself. Seconds are those of the machine that it ran on, with all that it did besides; those of the processor
are what the process that read the input took of it, whatever else ran.

{inputs} inputs{share}; {wrong} answers were not the designed ones; none was run. The api had {before} MiB before and
{after} MiB after. The longest took {seconds} s (`{slowest}`), the most work {work} s of the processor
(`{hardest}`), the largest process {process} MiB (`{largest}`).

"""


@dataclass(frozen=True)
class Row:
    id: str
    status: int
    code: str
    designed: tuple[str, ...]
    seconds: float
    work: float
    """Seconds of processor time of the process which read the input, as far as they were seen."""
    api: int
    """MiB that the api had at most while it answered."""
    process: int
    """MiB that the process which read the input had of its own at most."""

    @property
    def good(self) -> bool:
        return self.code in self.designed and (self.status < 500 or self.status in ADMITTED_STATUSES)


class Meter:
    """Memory of the api, and of what the worker's forkserver has forked."""

    def __init__(self, service: Service) -> None:
        assert service.process is not None
        self.parts = {part.pid: part for part in psutil.Process(service.process.pid).children()}
        self.api = next(pid for pid, part in self.parts.items() if "api" in part.cmdline())
        worker = next(part for part in self.parts.values() if "worker" in part.cmdline())
        (started,) = worker.children()
        self.forkserver = started if os.geteuid() == 0 else started.children()[0]  # in a pid namespace of its own

    def alive(self) -> bool:
        return all(part.is_running() and part.status() != psutil.STATUS_ZOMBIE for part in self.parts.values())

    def api_memory(self) -> int:
        return psutil.Process(self.api).memory_info().rss // MEBI

    @contextmanager
    def measuring(self) -> Iterator[dict[str, float]]:
        """The most memory of both, and the processor time of what was forked, within the block."""
        peak: dict[str, float] = {"api": 0, "process": 0, "work": 0.0}
        worked: dict[int, float] = {}
        over = threading.Event()
        inherited = private_memory(self.forkserver.pid)
        others = {child.pid for child in self.forkserver.children(recursive=True)}

        def sample() -> None:
            while not over.wait(SAMPLE_SECONDS):
                peak["api"] = max(peak["api"], self.api_memory())
                try:
                    forked = [child for child in self.forkserver.children(recursive=True) if child.pid not in others]
                    for child in forked:
                        worked[child.pid] = sum(child.cpu_times()[:2])
                except psutil.NoSuchProcess:
                    continue
                taken = sum(max(0, private_memory(child.pid) - inherited) for child in forked)
                peak["process"] = max(peak["process"], taken // MEBI)

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            yield peak
        finally:
            over.set()
            thread.join()
            peak["work"] = sum(worked.values())
            peak["api"] = max(peak["api"], self.api_memory())


def send_file(client: httpx.Client, hostile: HostileFile, canary: Path) -> httpx.Response:
    return client.post("/v1/checkpoints", content=hostile.make(canary), headers={"Prefer": "wait=300"})


def measured(meter: Meter, id: str, designed: tuple[str, ...], send: Callable[[], httpx.Response]) -> Row:
    began = time.monotonic()
    with meter.measuring() as peak:
        answer = send()
    told = answer.json()
    code = told.get("code") or told.get("state") or "read"
    seconds = time.monotonic() - began
    return Row(id, answer.status_code, code, designed, seconds, peak["work"], int(peak["api"]), int(peak["process"]))


def rows(client: httpx.Client, meter: Meter, canary: Path, only: str, every: int) -> Iterator[Row]:
    asks = [ask for ask in hostile_asks() if re.search(only, ask.id)][::every]
    files = [hostile for hostile in hostile_files() if re.search(only, hostile.id)][::every]
    for ask in asks:
        yield measured(meter, ask.id, ask.codes, lambda a=ask: a.send(client))
    for hostile in files:
        yield measured(meter, hostile.id, (hostile.code or "read",), lambda h=hostile: send_file(client, h, canary))


def page(found: list[Row], every: int, before: int, after: int) -> str:
    slowest = max(found, key=lambda row: row.seconds)
    largest = max(found, key=lambda row: row.process)
    hardest = max(found, key=lambda row: row.work)
    head = INTRODUCTION.format(
        inputs=len(found),
        share="" if every == 1 else f", one in {every} of the corpus,",
        wrong=sum(not row.good for row in found),
        before=before,
        after=after,
        seconds=f"{slowest.seconds:.1f}",
        slowest=slowest.id,
        work=f"{hardest.work:.1f}",
        hardest=hardest.id,
        process=largest.process,
        largest=largest.id,
    )
    columns = ("input", "status", "code", "seconds", "processor", "api", "process")
    lines = [*head.splitlines(), f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    lines += [
        f"| `{row.id}` | {row.status} | {row.code} | {row.seconds:.1f} | {row.work:.1f} | {row.api} | {row.process} |"
        for row in found
    ]
    return "\n".join([*lines, ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", default="", help="inputs whose name this expression finds; the page is then not written"
    )
    parser.add_argument("--every", type=int, default=1, help="one in so many of the inputs")
    told = parser.parse_args()
    only = told.only
    with tempfile.TemporaryDirectory(prefix="recast-hostile-") as directory:
        canary = Path(directory, "canary")
        service = Service(Path(directory, "data"), free_port())
        service.start()
        try:
            with httpx.Client(base_url=service.url, timeout=700) as client:
                next(hostile_asks()).send(client)
                meter = Meter(service)
                before = meter.api_memory()
                found = []
                for row in rows(client, meter, canary, only, told.every):
                    found.append(row)
                    mark = "" if row.good else f"   NOT {' or '.join(row.designed)}"
                    cost = f"{row.seconds:6.1f} s {row.work:6.1f} s {row.process:5} MiB"
                    print(f"{cost} {row.status} {row.code:24} {row.id}{mark}", flush=True)
                after, alive = meter.api_memory(), meter.alive()
        finally:
            service.stop()
        ran = canary.exists()
    if not only:
        PAGE.write_text(page(found, told.every, before, after))
    print(f"{len(found)} inputs, {sum(not row.good for row in found)} wrong, api {before} -> {after} MiB")
    print("something was run" if ran else "nothing was run", "and all parts live" if alive else "and a part died")
    return int(ran or not alive or not all(row.good for row in found) or after > before + 64)


if __name__ == "__main__":
    sys.exit(main())
