"""Kills parts of a running `recast serve` at random, takes its store away, and counts what becomes of accepted work.

Nothing of what is submitted is at fault, so every conversion must succeed. The table tells how many were accepted and
succeeded; failed although not at fault; lost (no longer known); doubled (more than one final event); torn (an artifact
or a checkpoint whose bytes are not those of its sha256); stuck (not final although everything had come back); and how
long after a kill what it interrupted was queued again. Status 1 when any of them is not as it must be.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import httpx
import psutil
import psycopg

from app.architectures.calibration import save_checkpoint
from app.architectures.registry import load_registry
from app.database.embedded import EmbeddedPostgres

PROJECT = Path(__file__).resolve().parent.parent
PLUGINS = PROJECT / "tests" / "plugins"
ARCHITECTURES = ("torchvision/squeezenet1_1", "torchvision/shufflenet_v2_x0_5")
KILLS = {"child": 4, "worker": 4, "forkserver": 2, "api": 2, "postmaster": 2, "serve": 2, "store": 1}
"""What is killed how often, in parts; "store" is not killed but away for a while."""
STORE_AWAY = 5.0
"""Seconds that the store's directory is elsewhere."""
START_LIMIT = 240.0
FINISH_LIMIT = 600.0
"""Seconds in which the service must be ready, and after the last kill everything final."""


@dataclass
class Service:
    """`recast serve` on one data directory; restarted when it was killed."""

    data_dir: Path
    port: int
    process: psutil.Popen | None = None

    def start(self) -> None:
        environment = {**os.environ, "RECAST_PLUGINS_DIR": str(PLUGINS), "RECAST_CHILDREN": "2"}
        command = [sys.executable, "-P", "-m", "app.cli", "serve", "--port", str(self.port)]
        with (self.data_dir.parent / "service.log").open("ab") as log:
            self.process = psutil.Popen(
                [*command, "--data-dir", str(self.data_dir)], env=environment, stdout=log, stderr=log, cwd=PROJECT
            )

    def part(self, name: str) -> psutil.Process | None:
        """The process of that name that runs now."""
        with suppress(psutil.Error, OSError, ValueError, LookupError, StopIteration):
            assert self.process is not None
            if name == "serve":
                return self.process
            if name == "postmaster":
                pid_file = self.data_dir / "postgres" / "data" / "postmaster.pid"
                return psutil.Process(int(pid_file.read_text().split()[0]))
            parts = {word: p for p in self.process.children() for word in p.cmdline() if word in ("api", "worker")}
            if name in ("api", "worker"):
                return parts.get(name)
            forkserver = next(p for p in parts["worker"].children() if "forkserver" in " ".join(p.cmdline()))
            return forkserver if name == "forkserver" else forkserver.children(recursive=True)[-1]
        return None

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return int(self.process.wait(90))


@dataclass
class Work:
    """Submits conversions and keeps a number of them unfinished, until told to stop."""

    client: httpx.Client
    weights: list[tuple[str, Path]]
    unfinished: int
    random: random.Random
    accepted: dict[str, str] = field(default_factory=dict)
    """sha256 of the checkpoint by conversion id."""
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.stop.is_set():
            with suppress(httpx.HTTPError, KeyError, ValueError):
                if sum(1 for id in list(self.accepted) if not self.is_final(id)) < self.unfinished:
                    self._submit()
            self.stop.wait(0.5)

    def is_final(self, id: str) -> bool:
        answer = self.client.get(f"/v1/conversions/{id}").raise_for_status()
        return answer.json()["state"] not in ("queued", "running")

    def _submit(self) -> None:
        """One upload and one conversion, sent again until they are answered, under one key."""
        name, path = self.random.choice(self.weights)
        key = uuid4().hex
        target = self.random.choice(["onnx", "torchscript"])
        while not self.stop.is_set():
            with suppress(httpx.HTTPError):
                upload = self.client.put("/v1/checkpoints", content=_varied(path, key))
                if upload.status_code in (200, 201):
                    sha256 = upload.json()["sha256"]
                    body = {"checkpoint": sha256, "architecture": name, "target": target, "accept": ACCEPT}
                    answer = self.client.post("/v1/conversions", json=body, headers={"Idempotency-Key": key})
                    if answer.status_code in (200, 202):
                        self.accepted[answer.json()["id"]] = sha256
                        return
            self.stop.wait(0.5)


ACCEPT = ["pass", "pass_with_notes", "inconclusive"]


def _varied(path: Path, key: str) -> bytes:
    """The file with other weights: the last bits of two numbers differ, so that nothing is known already."""
    content = bytearray(path.read_bytes())
    header = int.from_bytes(content[:8], "little")
    content[8 + header] ^= int(key[:2], 16)
    content[8 + header + 4] ^= int(key[2:4], 16)
    return bytes(content)


@contextmanager
def _working(work: Work) -> Iterator[None]:
    thread = threading.Thread(target=work.run)
    thread.start()
    try:
        yield
    finally:
        work.stop.set()
        thread.join()


def _take_store_away(objects: Path, away: Path) -> None:
    """Move the store's directory away for a while. A part that starts meanwhile makes a new one; what was stored there
    is kept."""
    objects.rename(away)
    time.sleep(STORE_AWAY)
    while objects.exists():
        for stored in objects.glob("sha256/??/*"):
            stored.rename(away / stored.relative_to(objects))
        shutil.rmtree(objects, ignore_errors=True)
    away.rename(objects)


def _strike(service: Service, kind: str) -> bool:
    """Kill a part, or take the store away for a while; False when there is no such part now."""
    if kind == "store":
        _take_store_away(service.data_dir / "objects", service.data_dir / "away")
        return True
    part = service.part(kind)
    if part is None:
        return False
    with suppress(psutil.NoSuchProcess):
        part.kill()
    if kind == "serve":
        part.wait(20)
        service.start()
    return True


def chaos(service: Service, work: Work, kills: int, pause: float) -> list[tuple[float, str]]:
    """Kill so many parts, with ``pause`` seconds between two in the mean; gives when (time.time()) and what."""
    done: list[tuple[float, str]] = []
    while len(done) < kills:
        time.sleep(work.random.uniform(0.2, 1.8) * pause)
        (kind,) = work.random.choices(list(KILLS), list(KILLS.values()))
        at = time.time()
        if _strike(service, kind):
            done.append((at, kind))
            print(f"{len(done):4} {kind}", flush=True)
    return done


def _until_ready(client: httpx.Client) -> None:
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline:
        with suppress(httpx.HTTPError):
            if client.get("/readyz").status_code == 200:
                return
        time.sleep(0.3)
    raise SystemExit("The service was not ready in time.")


def _until_final(work: Work) -> list[str]:
    """Wait until everything accepted has ended; gives what had not."""
    deadline = time.monotonic() + FINISH_LIMIT
    left = list(work.accepted)
    while left and time.monotonic() < deadline:
        with suppress(httpx.HTTPError):
            known = [id for id in left if work.client.get(f"/v1/conversions/{id}").status_code != 404]
            left = [id for id in known if not work.is_final(id)]
        time.sleep(1)
    return left


def judge(service: Service, work: Work, kills: list[tuple[float, str]], stuck: list[str]) -> dict[str, object]:
    """What became of everything that was accepted."""
    counted: dict[str, object] = {"kills": len(kills), "accepted": len(work.accepted)}
    succeeded, lost, torn = 0, 0, 0
    failed: dict[str, int] = {}
    for id, sha256 in work.accepted.items():
        answer = work.client.get(f"/v1/conversions/{id}")
        if answer.status_code == 404:
            lost += 1
            continue
        conversion = answer.json()
        stored = service.data_dir / "objects" / "sha256" / sha256[:2] / sha256[2:]
        torn += not stored.exists() or hashlib.sha256(stored.read_bytes()).hexdigest() != sha256
        if conversion["state"] == "succeeded":
            succeeded += 1
            artifact = work.client.get(f"/v1/conversions/{id}/artifact", params={"unverified": "true"})
            torn += hashlib.sha256(artifact.content).hexdigest() != conversion["artifact"]["sha256"]
        elif id not in stuck:
            code = conversion["problem"]["code"]
            failed[code] = failed.get(code, 0) + 1
    doubled, waits = _history(service, kills)
    counted |= {"succeeded": succeeded, "failed_not_at_fault": failed, "lost": lost, "doubled": doubled, "torn": torn}
    counted |= {"stuck": len(stuck), "interrupted": len(waits)}
    counted["requeue_seconds_median"] = round(statistics.median(waits), 1) if waits else None
    counted["requeue_seconds_max"] = round(max(waits), 1) if waits else None
    return counted


def _history(service: Service, kills: list[tuple[float, str]]) -> tuple[int, list[float]]:
    """How many conversions ended twice; seconds from a kill to the end of the wait for another attempt, for each."""
    with psycopg.connect(EmbeddedPostgres(service.data_dir).url) as connection:
        rows = connection.execute(
            "select conversion_id, extract(epoch from created_at)::float, data ->> 'state', (data ->> 'attempt')::int"
            " from events where type = 'state' order by id"
        ).fetchall()
    doubled = 0
    waits = []
    for id in {row[0] for row in rows}:
        own = [row[1:] for row in rows if row[0] == id]
        doubled += sum(state not in ("queued", "running") for _, state, _ in own) > 1
        starts = [(at, attempt) for at, state, attempt in own if state == "running"]
        requeued = [at for at, state, _ in own if state == "queued"]
        for began, _ in starts[:-1]:
            again = next((at for at in requeued if at > began), None)
            if again is not None and (killed := _cause(kills, began, again)) is not None:
                waits.append(again - killed)
    return doubled, waits


def _cause(kills: list[tuple[float, str]], began: float, ended: float) -> float | None:
    """When what ran from ``began`` and was queued again at ``ended`` was interrupted: by the first kill of its worker,
    else by the last that can have hit its process."""
    between = [(at, kind) for at, kind in kills if began <= at <= ended]
    workers = [at for at, kind in between if kind in ("worker", "serve")]
    processes = [at for at, kind in between if kind in ("child", "forkserver")]
    return workers[0] if workers else processes[-1] if processes else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="of the choice of what is killed, and when")
    parser.add_argument("--kills", type=int, default=10, help="kills and outages (default 10)")
    parser.add_argument("--pause", type=float, default=10.0, help="seconds between two in the mean (default 10)")
    parser.add_argument("--unfinished", type=int, default=4, help="conversions kept unfinished (default 4)")
    parser.add_argument("--port", type=int, help="of the service; default: a free one")
    parser.add_argument("--directory", type=Path, help="where the service keeps its data; default: a temporary one")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="recast-chaos-") as temporary:
        directory = given.directory or Path(temporary)
        counted = _run(given, directory)
    print(json.dumps(counted) if given.json else "\n".join(f"{name:24} {value}" for name, value in counted.items()))
    bad = ("failed_not_at_fault", "lost", "doubled", "torn", "stuck", "stop_status")
    return 1 if any(counted[name] for name in bad) else 0


def _run(given: argparse.Namespace, directory: Path) -> dict[str, object]:
    directory.chmod(0o755)
    registry = load_registry(PLUGINS)
    weights = []
    for name in ARCHITECTURES:
        path = directory / f"{name.replace('/', '-')}.pt"
        save_checkpoint(registry, name, {}, path)
        weights.append((name, _as_safetensors(path)))
    service = Service(directory / "data", given.port or _free_port())
    service.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{service.port}", timeout=30) as client:
            _until_ready(client)
            work = Work(client, weights, given.unfinished, random.Random(given.seed))
            with _working(work):
                kills = chaos(service, work, given.kills, given.pause)
            _until_ready(client)
            stuck = _until_final(work)
            return {**judge(service, work, kills, stuck), "stop_status": service.stop()}
    finally:
        with suppress(psutil.Error, ProcessLookupError, subprocess.SubprocessError):
            assert service.process is not None
            service.process.kill()


def _as_safetensors(path: Path) -> Path:
    import torch
    from safetensors.torch import save_file

    state = torch.load(path, weights_only=True)
    seen: set[int] = set()
    own = {}
    for name, tensor in state.items():
        own[name] = tensor.clone() if tensor.data_ptr() in seen else tensor.contiguous()
        seen.add(tensor.data_ptr())
    save_file(own, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
