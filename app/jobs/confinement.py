"""What a conversion's process may not do: the layers around it, each of which holds where others are refused.

Linux only; each layer that the platform does not permit is named with its reason, never silently skipped.
"""

import ctypes
import os
import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from app.jobs import landlock
from app.jobs.messages import LONGEST
from app.jobs.namespaces import DEVICES, View, leave_ipc, leave_network
from app.jobs.syscall_filter import filter_system_calls
from app.processes import PR_SET_DUMPABLE, checked, die_with_parent, libc, prctl

# linux/prctl.h, linux/capability.h
PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 38, 24, 47, 4
CAPABILITY_VERSION_3 = 0x20080522
CAPSET = {"x86_64": 126, "aarch64": 91}

USER_BASE = 2_000_000_000
"""The user that a worker's conversions run as when it is root: this and the worker's process id, so that no two workers
share one. No system gives such numbers to accounts."""
NOBODY = 65534
"""The same where a container maps no numbers that high."""
PROCESSES = 64
"""Processes and threads that a conversion may have, beside ``PROCESSES_PER_CORE``: it forks once, and libraries start
pools of a thread for each core."""
PROCESSES_PER_CORE = 8
SIGNALS = 1024
"""Signals that may wait for its processes, each with some bytes of the kernel."""

Requirement = Literal["none", "network", "full"]
LAYERS = ("files", "processes", "network", "ipc", "user", "landlock", "syscalls", "limits")
"""In the order in which they are put on."""


@dataclass(frozen=True)
class Limits:
    """Bounds of one process. Sizes in bytes; ``timeout`` in seconds of wall time, kept by the supervisor."""

    timeout: float
    memory: int | None = None
    """Private memory beyond what the forkserver hands down; copy-on-write mappings of a checkpoint count."""
    file_bytes: int | None = None
    disk_bytes: int | None = None
    """Of all files together."""
    open_files: int = 1024
    neighbours: int = 0
    """Other jobs that may run at the same time as the same user, whose processes RLIMIT_NPROC counts together."""
    message_bytes: int = LONGEST
    """Of the longest message to its supervisor."""
    network: bool = False
    processor: Mapping[str, float] = field(default_factory=dict)
    """Seconds of processor time of all its processes together, by the stage that it is in; the first is inspect."""

    def with_memory_for(self, mapped_bytes: int) -> "Limits":
        """These limits for a process that maps a file of this size into its memory."""
        return self if self.memory is None else replace(self, memory=self.memory + mapped_bytes)


@dataclass(frozen=True)
class Confined:
    """What came of it: the layers in force, and those that the platform refused, each with a word on it."""

    in_force: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def suffices(self, requirement: Requirement) -> bool:
        """Whether a conversion may run so. ``network``: no socket of it reaches another machine or process."""
        if requirement == "none":
            return True
        if requirement == "full":
            return not self.missing
        return "network" in self.in_force or "syscalls" in self.in_force


def confine(limits: Limits, view: View, *, own_processes: str | None, user: int | None) -> Confined:
    """Confine this process for good; it has a single thread, and was just forked.

    ``own_processes``: why it has no pid namespace of its own; None: it has. ``user``: whom to be, where this is root.
    """
    os.setsid()
    confined = Confined()

    def put_on(layer: str, measure: Callable[[], str | None]) -> None:
        try:
            confined.in_force[layer] = measure() or "in force"
        except (OSError, ValueError) as error:
            confined.missing[layer] = str(error)

    if own_processes is None:
        confined.in_force["processes"] = "in force"
    else:
        confined.missing["processes"] = own_processes
    if user is not None:
        _give(view, user)
    put_on("files", lambda: view.enter(own_processes=own_processes is None))
    apart = "files" in confined.in_force
    if not limits.network:
        put_on("network", leave_network)
    put_on("ipc", leave_ipc)
    put_on("limits", lambda: _limit(limits, apart))
    if user is not None and not apart:
        _give(view, 0)
    put_on("user", lambda: _drop_privileges(user if apart else None))
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    readable, writable = _reachable(view, apart)
    put_on("landlock", lambda: f"ABI {landlock.restrict_files(readable, writable, network=limits.network)}")
    put_on("syscalls", lambda: filter_system_calls(network=limits.network))
    prctl(PR_SET_DUMPABLE, 1)  # so that the forkserver, which is closed to others, can see what it uses
    die_with_parent()  # last: a change of credentials clears it
    return confined


def _reachable(view: View, apart: bool) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """What may be read and what written: in a view of its own, all that is there, which is mounted read-only."""
    if apart:
        places = map(Path, ("/tmp", "/var/tmp", "/dev/shm", "/dev/null"))
        return (Path("/"),), (*view.writable, view.temporary, *places)
    devices = (Path("/dev", name) for name in DEVICES)  # not all: root's own are the disks
    return (*view.readable, Path("/proc"), *devices), (*view.writable, view.temporary, Path("/dev/null"))


def most_processes() -> int:
    """Processes and threads that a conversion may have."""
    return PROCESSES + PROCESSES_PER_CORE * (os.cpu_count() or 1)


def users_of(worker: int) -> tuple[int, ...]:
    """Whom a worker's conversions may run as when it is root, the best first."""
    return (USER_BASE + worker, NOBODY)


def _limit(limits: Limits, apart: bool) -> None:
    for kind in (resource.RLIMIT_CORE, resource.RLIMIT_MEMLOCK, resource.RLIMIT_MSGQUEUE):
        _bound(kind, 0)
    _bound(resource.RLIMIT_SIGPENDING, SIGNALS * (1 + limits.neighbours))
    _bound(resource.RLIMIT_NOFILE, limits.open_files)
    _bound(resource.RLIMIT_FSIZE, limits.file_bytes)
    cores = os.cpu_count() or 1
    _bound(resource.RLIMIT_CPU, int(limits.timeout * cores) + 1)
    others = 0 if apart or os.geteuid() == 0 else _threads_of(os.geteuid())
    _bound(resource.RLIMIT_NPROC, others + most_processes() * (1 + limits.neighbours))
    if limits.memory is not None:
        _bound(resource.RLIMIT_DATA, _data_bytes() + limits.memory)


def _bound(kind: int, bound: int | None) -> None:
    if bound is None:
        return
    _, hard = resource.getrlimit(kind)
    bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
    resource.setrlimit(kind, (bound, bound))


def _data_bytes() -> int:
    """Private writable memory that this process has, which RLIMIT_DATA counts."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:")), 0)


def _threads_of(user: int) -> int:
    """Threads of all processes of a user: RLIMIT_NPROC counts them together."""
    count = 0
    for place in Path("/proc").iterdir():
        try:
            if place.name.isdigit() and place.stat().st_uid == user:
                count += len(list((place / "task").iterdir()))
        except OSError:
            continue
    return count


def _give(view: View, user: int) -> None:
    """Let a user's be what it may write in."""
    for place in (*view.writable, view.temporary):
        os.chown(place, user, user)


def _drop_privileges(user: int | None) -> str:
    """Have no capability, none to gain, and, where this is root, another user."""
    if os.geteuid() != 0 and not _is_privileged():
        return "no privileges"
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    for capability in range(_last_capability() + 1):
        prctl(PR_CAPBSET_DROP, capability)
    told = "no privileges"
    if os.geteuid() == 0:
        if user is None:
            _drop_capabilities()
            raise OSError("without a view of files of its own, root stays root, but without privileges")
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        told = f"user {user}, no privileges"
    _drop_capabilities()
    return told


def _is_privileged() -> bool:
    lines = Path("/proc/self/status").read_text().splitlines()
    return any(line.startswith("CapPrm:") and int(line.split()[1], 16) for line in lines)


def _last_capability() -> int:
    return int(Path("/proc/sys/kernel/cap_last_cap").read_text())


def _drop_capabilities() -> None:
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    none = (ctypes.c_uint32 * 6)()
    checked(libc().syscall(CAPSET[os.uname().machine], ctypes.byref(header), ctypes.byref(none)))
