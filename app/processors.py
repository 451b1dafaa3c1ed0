"""How many processors this process may use, and how its threads wait for each other on them."""

import os
from collections.abc import Iterator
from contextlib import suppress
from math import ceil
from pathlib import Path, PurePosixPath

SPINS = "30000"
"""Turns in which an OpenMP thread waits awake for the others, some tens of microseconds.

Without a bound, conversions that share cores lose most of their time so (measured: 2.7 s instead of 1.0 s for a repeat
conversion); a lone one loses as much when its threads sleep at once.
"""


def bound_spinning() -> None:
    """Has an effect only before OpenMP is loaded, which torch does; what the environment says already stays."""
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def available_cores() -> int:
    """Processors that this process may run on: by its affinity, and by the quota of time of its control group."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, ceil(quota)))


def cpu_quota(membership: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Processors' worth of time that the control groups of this process may use, versions 1 and 2; None: no bound.

    Source: Documentation/admin-guide/cgroup-v2.rst (cpu.max) and Documentation/scheduler/sched-bwc.rst of Linux.
    """
    with suppress(OSError):
        quotas = [quota for line in membership.read_text().splitlines() for quota in _quotas(line, root)]
        return min(quotas, default=None)
    return None


def _quotas(line: str, root: Path) -> Iterator[float]:
    """Of one line ``hierarchy:controllers:path`` of cgroups(7), from the group itself up to the root."""
    _, controllers, path = line.split(":", 2)
    if controllers and "cpu" not in controllers.split(","):
        return
    mounts = [root] if not controllers else [root / controllers, root / "cpu"]
    group = PurePosixPath(path.lstrip("/"))
    for mount in mounts:
        for at in (group, *group.parents):
            with suppress(OSError, ValueError):
                quota, period = _written(mount / at, version=1 if controllers else 2)
                if quota > 0 and period > 0:
                    yield quota / period


def _written(group: Path, version: int) -> tuple[float, float]:
    if version == 1:
        return tuple(float((group / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))  # type: ignore[return-value]
    quota, period = (group / "cpu.max").read_text().split()
    return float(quota), float(period)  # "max" is no number: there is no bound
