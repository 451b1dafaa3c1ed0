"""Strikes a running service at random, and counts what becomes of accepted work.

Nothing of what is submitted is at fault, so every conversion must succeed, but for the poisonous ones of --poison,
which must fail. The table tells how many were accepted and succeeded; failed although not at fault; lost (no longer
known); doubled (more than one final event); torn (an artifact or a checkpoint whose bytes are not those of its
sha256); stuck (not final although everything had come back); and how long after a strike what it interrupted was queued
again. Status 1 when any of them is not as it must be.

What is struck is `recast serve`, or with --fleet two apis and four workers on a PostgreSQL and an S3-speaking store,
each api and worker in a network namespace of its own where that may be had.
"""

import argparse
import hashlib
import itertools
import json
import random
import statistics
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
import psycopg

from app.architectures.calibration import save_checkpoint
from app.architectures.registry import load_registry
from scripts.fleet import Fleet
from scripts.serving import PLUGINS, Serving, leave_small_disk, on_small_disk

System = Serving | Fleet

CHEAP = "chaos/net"
ARCHITECTURES = (CHEAP, CHEAP, CHEAP, "torchvision/squeezenet1_1")
ACCEPT = ["pass", "pass_with_notes", "inconclusive"]
START_LIMIT = 900.0
FINISH_LIMIT = 900.0
"""Seconds in which the service must be ready, and after the last strike everything final."""
BACK_SOON = 5.0
"""Seconds after the return of a part in which the first new upload must be answered."""


@dataclass(frozen=True)
class Struck:
    """What was struck when (time.time()), and which conversions ran in the workers that it hit as a whole."""

    at: float
    kind: str
    hit: frozenset[str] = frozenset()


@dataclass
class Work:
    """Submits conversions and keeps a number of them unfinished, until told to stop."""

    urls: list[str]
    weights: dict[str, Path]
    unfinished: int
    random: random.Random
    seconds: float = 8.0
    """Longest time that a cheap conversion takes."""
    accepted: dict[str, str] = field(default_factory=dict)
    """sha256 of the checkpoint by conversion id."""
    poisonous: set[str] = field(default_factory=set)
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._clients = itertools.cycle([httpx.Client(base_url=url, timeout=30) for url in self.urls])

    @property
    def client(self) -> httpx.Client:
        """Another api each time."""
        return next(self._clients)

    def run(self) -> None:
        while not self.stop.is_set():
            with suppress(httpx.HTTPError, KeyError, ValueError):
                innocent = [id for id in self.accepted if id not in self.poisonous]
                if sum(1 for id in innocent if not self.is_final(id)) < self.unfinished:
                    self.submit()
            self.stop.wait(0.5)

    def is_final(self, id: str) -> bool:
        answer = self.client.get(f"/v1/conversions/{id}").raise_for_status()
        return answer.json()["state"] not in ("queued", "running")

    def submit(self, poison: str = "none", seconds: float | None = None) -> None:
        """One upload and one conversion, sent again until they are answered, under one key."""
        name = CHEAP if seconds is not None else self.random.choice(ARCHITECTURES)
        options = {"seconds": self.random.uniform(0, self.seconds) if seconds is None else seconds, "poison": poison}
        key = uuid4().hex
        order = {"architecture": name, "target": self.random.choice(["onnx", "torchscript"]), "accept": ACCEPT}
        if name == CHEAP:
            order["architecture_options"] = options
        while not self.stop.is_set():
            with suppress(httpx.HTTPError):
                upload = self.client.put("/v1/checkpoints", content=_varied(self.weights[name], key))
                if upload.status_code in (200, 201):
                    sha256 = upload.json()["sha256"]
                    answer = self.client.post(
                        "/v1/conversions", json={"checkpoint": sha256, **order}, headers={"Idempotency-Key": key}
                    )
                    if answer.status_code in (200, 202):
                        self.accepted[answer.json()["id"]] = sha256
                        if poison != "none":
                            self.poisonous.add(answer.json()["id"])
                        return
            self.stop.wait(0.5)


def _varied(path: Path, key: str) -> bytes:
    """The file with other weights: the last bits of some numbers differ, so that nothing is known already."""
    content = bytearray(path.read_bytes())
    header = int.from_bytes(content[:8], "little")
    for number in range(4):
        content[8 + header + 4 * number] ^= int(key[2 * number : 2 * number + 2], 16)
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
        work.stop.clear()


# --- modes ----------------------------------------------------------------------------------------------------------


def strikes(system: System, work: Work, count: int, pause: float) -> list[Struck]:
    """Strike so often, with ``pause`` seconds between two in the mean."""
    done: list[Struck] = []
    while len(done) < count:
        time.sleep(work.random.uniform(0.2, 1.8) * pause)
        (kind,) = work.random.choices(list(system.kinds), list(system.kinds.values()))
        strike = system.aim(kind, work.random)
        if strike is not None:
            hit = _running_in(system, strike.workers) if strike.workers else frozenset()
            done.append(Struck(time.time(), kind, hit))
            strike.do()
            _tell(f"{len(done):4} {kind}, {len(hit)} conversions in its workers")
    return done


def restarts(system: Serving, work: Work, count: int) -> list[Struck]:
    """Kill everything so often, each time while conversions run, and start it again."""
    done = []
    for number in range(count):
        _until_ready(work)
        deadline = time.monotonic() + 60
        while not _running_in(system, "%") and time.monotonic() < deadline:
            time.sleep(0.2)
        time.sleep(work.random.uniform(0, 10))
        done.append(Struck(time.time(), "everything", _running_in(system, "%")))
        system.kill_everything()
        system.start()
        _tell(f"{number + 1:4} restart, {len(done[-1].hit)} running")
    return done


def rolling(fleet: Fleet, work: Work, count: int, conversions: int = 20) -> dict[str, object]:
    """Replace all workers, each once the one before it is back, so often, while that many long conversions run."""
    for _ in range(conversions):
        work.submit(seconds=60)
    statuses = []
    for number in range(count):
        for name in [name for name in fleet.machines if name.startswith("worker")]:
            statuses.append(fleet.replace(name))
            _tell(f"{number + 1:4} {name} ended with {statuses[-1]}")
            fleet.until_ready(START_LIMIT)
    return {"replaced": len(statuses), "bad_statuses": sum(status != 0 for status in statuses)}


def outages(system: System, work: Work, seconds: float, parts: tuple[str, ...]) -> dict[str, object]:
    """Take each part away for so long; gives the seconds from its return to the first new upload that is answered."""
    found: dict[str, object] = {}
    for part in parts:
        time.sleep(10)
        system.away(part, seconds)
        found[f"{part}_answers_after"] = round(_seconds_until_answered(work), 1)
        _tell(f"     {part} away for {seconds:g} s, answers {found[f'{part}_answers_after']} s after")
    found["late_answers"] = sum(isinstance(value, float) and value > BACK_SOON for value in found.values())
    return found


def _tell(what: str) -> None:
    print(time.strftime("%H:%M:%S"), what, flush=True)


def _seconds_until_answered(work: Work) -> float:
    began = time.monotonic()
    while time.monotonic() < began + START_LIMIT:
        with suppress(httpx.HTTPError):
            answer = work.client.put("/v1/checkpoints", content=_varied(work.weights[CHEAP], uuid4().hex))
            if answer.status_code in (200, 201):
                break
        time.sleep(0.1)
    return time.monotonic() - began


def _until_ready(work: Work) -> None:
    deadline = time.monotonic() + START_LIMIT
    for _ in work.urls:
        client = work.client
        while True:
            with suppress(httpx.HTTPError):
                if client.get("/readyz").status_code == 200:
                    break
            if time.monotonic() > deadline:
                raise SystemExit("The service was not ready in time.")
            time.sleep(0.3)


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


def _running_in(system: System, workers: str) -> frozenset[str]:
    query = "select id from conversions where state = 'running' and worker like %s"
    with suppress(psycopg.Error, OSError), psycopg.connect(system.database_url, connect_timeout=3) as connection:
        return frozenset(row[0] for row in connection.execute(query, (workers,)))
    return frozenset()


# --- the judgement --------------------------------------------------------------------------------------------------


def judge(system: System, work: Work, struck: list[Struck], stuck: list[str]) -> dict[str, object]:
    """What became of everything that was accepted."""
    succeeded, lost, torn, condemned = 0, 0, 0, 0
    failed: dict[str, int] = {}
    for id, sha256 in work.accepted.items():
        answer = work.client.get(f"/v1/conversions/{id}")
        if answer.status_code == 404:
            lost += 1
            continue
        conversion = answer.json()
        torn += _digest_of(system.objects / "sha256" / sha256[:2] / sha256[2:]) != sha256
        if id in work.poisonous:
            condemned += conversion["state"] == "failed"
        elif conversion["state"] == "succeeded":
            succeeded += 1
            artifact = work.client.get(
                f"/v1/conversions/{id}/artifact", params={"unverified": "true"}, follow_redirects=True
            )
            torn += hashlib.sha256(artifact.content).hexdigest() != conversion["artifact"]["sha256"]
        elif id not in stuck:
            _tell(f"     {id} {conversion['state']}: {conversion['problem']}")
            code = conversion["problem"]["code"]
            failed[code] = failed.get(code, 0) + 1
    doubled, waits = _history(system, struck)
    return {
        "strikes": len(struck),
        "accepted": len(work.accepted),
        "succeeded": succeeded,
        "poisonous": len(work.poisonous),
        "not_condemned": len(work.poisonous) - condemned,
        "failed_not_at_fault": failed,
        "lost": lost,
        "doubled": doubled,
        "torn": torn,
        "stuck": len(stuck),
        "interrupted": len(waits),
        "requeue_seconds_median": round(statistics.median(waits), 1) if waits else None,
        "requeue_seconds_max": round(max(waits), 1) if waits else None,
    }


def _digest_of(stored: Path) -> str | None:
    return hashlib.sha256(stored.read_bytes()).hexdigest() if stored.exists() else None


def _history(system: System, struck: list[Struck]) -> tuple[int, list[float]]:
    """How many conversions ended twice; seconds from a strike to the end of the wait for another attempt, for each."""
    with psycopg.connect(system.database_url) as connection:
        rows = connection.execute(
            "select conversion_id, extract(epoch from created_at)::float, data ->> 'state', (data ->> 'attempt')::int"
            " from events where type = 'state' order by id"
        ).fetchall()
    doubled = 0
    waits = []
    for id in {row[0] for row in rows}:
        own = [row[1:] for row in rows if row[0] == id]
        doubled += sum(state not in ("queued", "running") for _, state, _ in own) > 1
        starts = [at for at, state, _ in own if state == "running"]
        requeued = [at for at, state, _ in own if state == "queued"]
        for began in starts[:-1]:
            again = next((at for at in requeued if at > began), None)
            if again is not None and (cause := _cause(id, struck, began, again)) is not None:
                waits.append(again - cause)
    return doubled, waits


def _cause(id: str, struck: list[Struck], began: float, ended: float) -> float | None:
    """When what ran from ``began`` and was queued again at ``ended`` was interrupted: by the first strike at its
    worker, else by the last that can have hit its process."""
    between = [strike for strike in struck if began <= strike.at <= ended]
    workers = [strike.at for strike in between if id in strike.hit]
    processes = [strike.at for strike in between if strike.kind in ("child", "forkserver")]
    return workers[0] if workers else processes[-1] if processes else None


def _blamed(system: System) -> int:
    """Conversions that a death points at, which is none where workers were only told to stop."""
    with psycopg.connect(system.database_url) as connection:
        (count,) = connection.execute("select count(*) from conversions where workers_lost > 0").fetchone() or (0,)
        return int(count)


BAD = (
    "failed_not_at_fault",
    "not_condemned",
    "lost",
    "doubled",
    "torn",
    "stuck",
    "bad_statuses",
    "blamed",
    "late_answers",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--kills", type=int, default=10, help="strikes at random parts (default 10)")
    modes.add_argument(
        "--restarts", type=int, help="kill everything so often while conversions run, and start it again"
    )
    modes.add_argument("--rolling", type=int, help="replace all workers of a fleet so often while conversions run")
    modes.add_argument("--outage", type=float, help="take store, database and disk away for so many seconds each")
    parser.add_argument("--fleet", action="store_true", help="strike apis and workers on many machines")
    parser.add_argument("--seed", type=int, default=1, help="of the choice of what is struck, and when")
    parser.add_argument(
        "--pause", type=float, default=10.0, help="seconds between two strikes in the mean (default 10)"
    )
    parser.add_argument("--unfinished", type=int, default=4, help="conversions kept unfinished (default 4)")
    parser.add_argument(
        "--poison", action="store_true", help="submit two conversions that kill, which must be condemned"
    )
    parser.add_argument("--directory", type=Path, help="where the service keeps its data; default: a temporary one")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="recast-chaos-") as temporary:
        counted = _run(given, given.directory or Path(temporary))
    print(json.dumps(counted) if given.json else "\n".join(f"{name:24} {value}" for name, value in counted.items()))
    return 1 if any(counted.get(name) for name in BAD) or counted["stop_status"] != 0 else 0


def _run(given: argparse.Namespace, directory: Path) -> dict[str, object]:
    directory.chmod(0o755)
    with _started(given, directory) as system:
        work = Work(system.urls, _weights(directory), given.unfinished, random.Random(given.seed))
        _until_ready(work)
        struck: list[Struck] = []
        found: dict[str, object] = {}
        for poison in ("kill", "memory") if given.poison else ():
            work.submit(poison, seconds=0)
        if given.rolling:
            assert isinstance(system, Fleet)
            found = rolling(system, work, given.rolling)
        else:
            with _working(work):
                if given.restarts:
                    assert isinstance(system, Serving)
                    struck = restarts(system, work, given.restarts)
                elif given.outage:
                    parts = ("store", "database") if given.fleet else ("store", "database", "disk")
                    found = outages(system, work, given.outage, parts)
                else:
                    struck = strikes(system, work, given.kills, given.pause)
        _until_ready(work)
        stuck = _until_final(work)
        if given.rolling:
            found["blamed"] = _blamed(system)
        return {**judge(system, work, struck, stuck), **found, "stop_status": system.stop()}


@contextmanager
def _started(given: argparse.Namespace, directory: Path) -> Iterator[System]:
    fleet = given.fleet or given.rolling
    small = given.outage and not fleet
    if small:
        on_small_disk(directory / "data")
    system = Fleet(directory) if fleet else Serving(directory)
    try:
        system.start()
        yield system
    finally:
        system.end()
        if small:
            leave_small_disk(directory / "data")


def _weights(directory: Path) -> dict[str, Path]:
    """A file of made-up weights for each architecture."""
    import torch
    from safetensors.torch import save_file

    registry = load_registry(PLUGINS)
    made = {}
    for name in dict.fromkeys(ARCHITECTURES):
        path = directory / f"{name.replace('/', '-')}.pt"
        save_checkpoint(registry, name, {}, path)
        state = torch.load(path, weights_only=True)
        made[name] = path.with_suffix(".safetensors")
        save_file({key: tensor.clone().contiguous() for key, tensor in state.items()}, made[name])
    return made


if __name__ == "__main__":
    sys.exit(main())
