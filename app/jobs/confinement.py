"""What a conversion process may not do: outlive its supervisor, gain privileges, use the network, eat the machine.

Linux only; each measure that the platform does not permit is named, never silently skipped.
"""

import os
import resource
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from app.jobs.messages import LONGEST
from app.processes import checked, die_with_parent, libc, prctl

# linux/prctl.h and linux/sched.h
PR_SET_NO_NEW_PRIVS = 38
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000


@dataclass(frozen=True)
class Limits:
    """Bounds of one process. Sizes in bytes; ``timeout`` in seconds of wall time, kept by the supervisor."""

    timeout: float
    memory: int | None = None
    """Private memory beyond what the forkserver hands down; copy-on-write mappings of a checkpoint count."""
    file_bytes: int | None = None
    open_files: int = 1024
    message_bytes: int = LONGEST
    """Of the longest message to its supervisor."""
    network: bool = False

    def within(self, timeout: float) -> "Limits":
        """These limits with another time."""
        return replace(self, timeout=timeout)

    def with_memory_for(self, mapped_bytes: int) -> "Limits":
        """These limits for a process that maps a file of this size into its memory."""
        return self if self.memory is None else replace(self, memory=self.memory + mapped_bytes)


def confine(limits: Limits) -> tuple[str, ...]:
    """Confine this process for good; gives the measures that the platform refused, with its reasons.

    To be called right after the fork, while the process has a single thread.
    """
    os.setsid()
    refused = []
    measures: list[tuple[str, Callable[[], None]]] = [
        ("no network", (lambda: None) if limits.network else _leave_network),
        ("no new privileges", lambda: prctl(PR_SET_NO_NEW_PRIVS, 1)),
        ("no core dumps", lambda: _limit(resource.RLIMIT_CORE, 0)),
        ("limited open files", lambda: _limit(resource.RLIMIT_NOFILE, limits.open_files)),
        ("limited file size", lambda: _limit(resource.RLIMIT_FSIZE, limits.file_bytes)),
        ("limited memory", lambda: _limit_memory(limits.memory)),
        ("dies with its supervisor", die_with_parent),  # last: a change of credentials clears it
    ]
    for name, measure in measures:
        try:
            measure()
        except (OSError, ValueError) as error:
            refused.append(f"{name}: {error}")
    return tuple(refused)


def _limit(kind: int, bound: int | None) -> None:
    if bound is None:
        return
    _, hard = resource.getrlimit(kind)
    bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
    resource.setrlimit(kind, (bound, bound))


def _limit_memory(beyond_inherited: int | None) -> None:
    if beyond_inherited is None:
        return
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            _limit(resource.RLIMIT_DATA, int(line.split()[1]) * 1024 + beyond_inherited)


def _leave_network() -> None:
    """Enter an empty network namespace; without privileges by way of a user namespace of one's own."""
    if os.geteuid() == 0:
        _unshare(CLONE_NEWNET)
        return
    uid, gid = os.geteuid(), os.getegid()
    _unshare(CLONE_NEWUSER | CLONE_NEWNET)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def _unshare(flags: int) -> None:
    checked(libc().unshare(flags))
