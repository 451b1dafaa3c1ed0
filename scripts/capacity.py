"""What measured costs mean for many workers: a simulation of a fleet on one PostgreSQL.

Every slot of a worker computes, and asks the database VISITS times for each conversion. The database serves as many at
once as it has cores, first come, first served. Commits that notify wait for the flush of the log one after the other,
because PostgreSQL has one lock for them; others flush together. So throughput is what the workers can do until the
processors or that lock are full, and stays there however many workers are added.
"""

import argparse
import heapq
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

VISITS = 13
"""Transactions of one conversion: asking for it, taking, starting, a change of stage each, ending, removing the entry,
counting."""
SIMULATED = 20_000
"""Conversions after which the rates no longer change."""
NOTIFYING = 3
"""Of them those that notify and wait for the disk: asking for it, starting and ending."""


@dataclass(frozen=True)
class Fleet:
    """Workers, what one conversion costs them, and what it costs the database."""

    workers: int
    children: int
    seconds: float
    """Of one conversion in its process (mean)."""
    database_seconds: float
    """Of the database's processors for one conversion."""
    database_cores: int
    flush: float = 0.001
    """Seconds that the disk of the database's log needs for one flush."""


@dataclass(frozen=True)
class Outcome:
    """``rate``: conversions a second. ``busy``: the part of the time in which the database's processors compute;
    ``locked``: in which the lock of commits that notify is held."""

    rate: float
    busy: float
    locked: float
    waited: float
    """Seconds of a conversion in which it waited for the database (mean)."""


def simulate(fleet: Fleet, conversions: int = SIMULATED, seed: int = 0) -> Outcome:
    """Run the fleet on a queue that never empties."""
    draw = random.Random(seed)
    cores = [0.0] * fleet.database_cores
    visit = fleet.database_seconds / VISITS
    slots = [(draw.uniform(0, fleet.seconds), 0) for _ in range(fleet.workers * fleet.children)]
    heapq.heapify(slots)
    now = waited = lock = 0.0
    done = 0
    while done < conversions:
        now, asked = heapq.heappop(slots)
        end = max(now, heapq.heappop(cores)) + visit
        heapq.heappush(cores, end)
        if asked < NOTIFYING:
            end = lock = max(end, lock) + fleet.flush
        else:
            end += fleet.flush
        waited += end - now
        done += asked == VISITS - 1
        computing = draw.expovariate(VISITS / fleet.seconds)
        heapq.heappush(slots, (end + computing, (asked + 1) % VISITS))
    rate = done / now
    return Outcome(
        rate=rate,
        busy=rate * fleet.database_seconds / fleet.database_cores,
        locked=rate * NOTIFYING * fleet.flush,
        waited=waited / done,
    )


def table(sizes: Sequence[int], fleet: Fleet, waiting: int) -> str:
    """What fleets of these sizes do with so many waiting conversions."""
    lines = [
        "| workers | conversions a second | processors busy | lock held | hours for the queue |",
        "|---|---|---|---|---|",
    ]
    for workers in sizes:
        outcome = simulate(replace(fleet, workers=workers))
        hours = waiting / outcome.rate / 3600
        lines.append(f"| {workers} | {outcome.rate:.0f} | {outcome.busy:.0%} | {outcome.locked:.0%} | {hours:.1f} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 10, 50, 100, 200, 400])
    parser.add_argument("--children", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.6, help="of one conversion in its process")
    parser.add_argument("--database-seconds", type=float, help="of the database for one conversion")
    parser.add_argument("--measured", type=Path, help="what `scripts/load --json` wrote, in place of that")
    parser.add_argument("--database-cores", type=int, default=8)
    parser.add_argument("--flush", type=float, default=0.001, help="seconds, of the database's disk")
    parser.add_argument("--waiting", type=int, default=1_000_000)
    told = parser.parse_args(arguments)
    cost = told.database_seconds
    if cost is None:
        if told.measured is None:
            parser.error("say --database-seconds or --measured")
        cost = json.loads(told.measured.read_text())["database_seconds"]
    fleet = Fleet(1, told.children, told.seconds, cost, told.database_cores, told.flush)
    print(f"{told.waiting:,} waiting; {told.seconds} s and {cost * 1000:.1f} ms of the database for each;")
    print(
        f"{told.children} at once in each worker, {told.database_cores} cores and flushes of {told.flush * 1000:g} ms\n"
    )
    print(table(told.workers, fleet, told.waiting))


if __name__ == "__main__":
    main()
