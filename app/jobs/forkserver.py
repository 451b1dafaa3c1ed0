"""The process that conversions are forked from: it has torch loaded, runs nothing itself, and knows no secret.

It is started with an environment by allow-list and with one end of a socket pair, over which the worker alone reaches
it; every process that it forks lets go of that socket first. Python's own forkserver listens on a path and unpickles
what anybody sends there.

For each job there is one process of conversion and what that one starts. A job has ended when none of them is left: in
a pid namespace the kernel sees to it; without one they are all in one process group, which the system call filter
keeps them in. While it runs, its memory and its files are measured as a whole.
"""

import importlib
import json
import os
import resource
import select
import signal
import socket
import sys
import sysconfig
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from app.domain.conversion import Stage
from app.jobs import child
from app.jobs.confinement import Confined, Limits, Requirement, confine, most_processes, users_of
from app.jobs.namespaces import (
    CLONE_NEWNS,
    CLONE_NEWPID,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_REC,
    MS_SLAVE,
    OF_ETC,
    OF_THE_SYSTEM,
    ProcessNamespace,
    View,
    enter_user_namespace,
    mount,
    outermost,
    unshare,
)
from app.jobs.usage import (
    MOST_MAPPINGS,
    descriptor_count,
    disk_usage,
    mapping_count,
    memory_of,
    private_memory,
    process_tree,
    processor_time,
    thread_count,
)
from app.processes import PR_SET_CHILD_SUBREAPER, close_to_others, die_with_parent, loading, prctl

WATCH_INTERVAL = 0.25
"""Seconds between two measurements of what the jobs use."""
DRAIN_INTERVAL = 0.01
"""Seconds after which is looked again whether all processes of a job are gone, where no namespace tells."""
LONGEST_ORDER = 64 << 10
DESCRIPTORS_PER_FILE = 4
"""Descriptors that all processes of a job may have for each that one of them may: a process that is forked has them
all again."""
MEMORY_SLACK = 64 << 20
"""Bytes beyond its limit at which a job is ended: a single process that asks for more is refused it before."""


@dataclass
class Job:
    """One conversion's processes. ``ended``: the exit status of the first, once it has ended."""

    id: int
    pid: int
    limits: Limits
    places: tuple[Path, ...]
    """The directories that it may write in, and the file that takes what it prints."""
    namespace: ProcessNamespace | None
    processor: float | None
    """Seconds of processor time after which it is ended; None: never."""
    ended: int | None = None
    excess: str | None = None
    """What it had too much of."""

    def kill(self) -> None:
        """Kill every process of it; the first may not have made its group yet."""
        if self.namespace:
            self.namespace.kill()
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        if self.ended is None:
            os.kill(self.pid, signal.SIGKILL)

    def gone(self) -> bool:
        if self.ended is None:
            return False
        if self.namespace:
            return self.namespace.gone()
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return True
        return False


@dataclass
class Forkserver:
    """Takes orders, ``start`` and ``kill``, from the worker, and tells it ``started`` and ``ended``."""

    control: socket.socket
    hidden: tuple[Path, ...]
    user: int | None
    jobs: dict[int, Job] = field(default_factory=dict)
    readable: tuple[Path, ...] = ()
    private: int = 0
    """Bytes of memory of this process that a fork shares with it at first."""

    def serve(self) -> None:
        """Until the worker hangs up."""
        awake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        while True:
            ready, _, _ = select.select([self.control.fileno(), awake], [], [], self._patience())
            if awake in ready:
                with suppress(BlockingIOError):
                    os.read(awake, 4096)
            if self.control.fileno() in ready and not self._take_order():
                return
            self._reap()
            self._watch()

    def _patience(self) -> float | None:
        if any(job.ended is not None and job.namespace is None for job in self.jobs.values()):
            return DRAIN_INTERVAL
        return WATCH_INTERVAL if self.jobs else None

    def _take_order(self) -> bool:
        message, fds, _, _ = socket.recv_fds(self.control, LONGEST_ORDER, 2)
        if not message:
            return False
        order = json.loads(message)
        job = self.jobs.get(order["id"])
        if order["do"] == "kill" and job:
            job.kill()
        if order["do"] == "bound" and job:
            job.processor = order["seconds"] and processor_time(self._processes_of(job)) + order["seconds"]
        if order["do"] == "start":
            self._start(order, *fds)
        return True

    def _start(self, order: Mapping[str, Any], line: int, log: int) -> None:
        limits = Limits(**order["limits"])
        view = View(
            readable=(*self.readable, *map(Path, order["readable"])),
            writable=tuple(map(Path, order["writable"])),
            hidden=self.hidden,
            temporary=Path(order["temporary"]),
            root=Path(order["root"]),
        )
        namespace, refused = None, None
        try:
            namespace = ProcessNamespace()
        except OSError as error:
            refused = str(error)
        try:
            pid = os.fork()
        except OSError:  # no memory or no process is left for it
            pid = -1
        if pid == 0:
            confining = partial(confine, limits, view, own_processes=refused, user=self.user)
            self._become_child(line, log, view, confining, order["requirement"])
        if namespace:
            namespace.leave()
        os.close(line)
        os.close(log)
        if pid < 0:
            if namespace:
                namespace.kill()
            self._tell(id=order["id"], event="ended", status=None, excess=None)
            return
        places = (*view.writable, view.temporary, Path(order["log"]))
        processor = limits.processor.get(Stage.inspect)
        self.jobs[order["id"]] = Job(order["id"], pid, limits, places, namespace, processor)
        self._tell(id=order["id"], event="started", pid=pid if os.getpid() != 1 else None)

    def _become_child(
        self, line: int, log: int, view: View, confining: Callable[[], Confined], requirement: Requirement
    ) -> None:
        """What the forked process does; it ends here whatever happens."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            line = _keep_only(line, log)
            confined = confining()
            _live_in(Path("/tmp") if "files" in confined.in_force else view.temporary)
            status = child.main(socket.socket(fileno=line), confined, requirement)
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except BaseException:  # noqa: BLE001 - it is the process's last word, into its log
            traceback.print_exc()
        finally:
            with suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def _reap(self) -> None:
        """Take note of every process that ended. A job's others are killed while its first still holds its number."""
        firsts = {job.pid: job for job in self.jobs.values() if job.ended is None}
        for pid, job in firsts.items():
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                job.kill()
                job.ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        for orphan in _ended(known={job.namespace.first for job in self.jobs.values() if job.namespace} | set(firsts)):
            os.waitpid(orphan, 0)
        for job in [job for job in self.jobs.values() if job.gone()]:
            del self.jobs[job.id]
            self._tell(id=job.id, event="ended", status=job.ended, excess=job.excess)

    def _watch(self) -> None:
        for job in self.jobs.values():
            if job.ended is not None or job.excess:
                continue
            job.excess = self._excess_of(job)
            if job.excess:
                job.kill()

    def _excess_of(self, job: Job) -> str | None:
        """What it has too much of; each is measured only where nothing before it is too much."""
        limits, pids = job.limits, self._processes_of(job)
        threads, descriptors = most_processes() * (1 + limits.neighbours), DESCRIPTORS_PER_FILE * limits.open_files
        memory, disk, processor = limits.memory, limits.disk_bytes, job.processor
        measures: dict[str, Callable[[], bool]] = {
            "processes": lambda: len(pids) > most_processes() or thread_count(pids) > threads,
            "descriptors": lambda: descriptor_count(pids) > descriptors,
            "memory": lambda: memory is not None and memory_of(pids, self.private, memory) > memory + MEMORY_SLACK,
            "mappings": lambda: mapping_count(pids) > MOST_MAPPINGS,
            "disk": lambda: disk is not None and disk_usage(job.places, pids, disk) > disk,
            "processor": lambda: processor is not None and processor_time(pids) > processor,
        }
        return next((name for name, too_much in measures.items() if too_much()), None)

    def _processes_of(self, job: Job) -> list[int]:
        return list(process_tree([job.pid, *([job.namespace.first] if job.namespace else _orphans(job.pid))]))

    def _tell(self, **message: Any) -> None:
        self.control.sendall(json.dumps(message).encode() + b"\n")


def _children() -> list[int]:
    with suppress(FileNotFoundError):
        return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    return []


def _ended(known: set[int]) -> Iterator[int]:
    """Orphans that came to this process and have ended: nobody else takes note of them."""
    for pid in _children():
        with suppress(ChildProcessError):
            if pid not in known and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                yield pid


def _orphans(group: int) -> list[int]:
    """Processes of a group whose parents ended, so that they came to this process."""
    found = []
    for pid in _children():
        with suppress(ProcessLookupError):
            if pid != group and os.getpgid(pid) == group:
                found.append(pid)
    return found


def _live_in(home: Path) -> None:
    """Let libraries keep what they must in a directory that goes with the job."""
    os.environ.update(HOME=str(home), TMPDIR=str(home), USER="recast", LOGNAME="recast")
    tempfile.tempdir = None


def _keep_only(line: int, log: int) -> int:
    """Have the line as descriptor 3, the log as output, and nothing else that was inherited.

    What a library holds open is replaced by /dev/null and not closed: it might use the number again.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    kept = os.dup2(line, 3) if line != 3 else 3
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd > 3 and fd != nothing:
            with suppress(OSError):  # the descriptor that listed them
                os.fstat(fd)
                os.dup2(nothing, fd)
    os.set_inheritable(kept, False)
    os.close(nothing)
    return kept


def visible_files() -> tuple[Path, ...]:
    """What Python and its libraries need: the system, the interpreter, and the packages that are loaded here.

    A directory from which modules are imported is not shown whole, unless it is one of the interpreter's: the working
    directory may be one, with the service's data in it.
    """
    whole = {Path(sys.prefix), Path(sys.base_prefix), *map(Path, OF_THE_SYSTEM)}
    whole |= {Path("/etc") / name for name in OF_ETC}
    whole |= {Path(path) for name, path in sysconfig.get_paths().items() if name in ("stdlib", "purelib", "platlib")}
    whole |= {
        Path(path) for path in sys.path if path.endswith((".zip", "site-packages", "dist-packages", "lib-dynload"))
    }
    whole |= {Path(path) for path in os.environ.get("LD_LIBRARY_PATH", "").split(":") if path}
    found = set(outermost(path for path in whole if path.is_absolute()))
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and "." not in name and not any(Path(file).is_relative_to(path) for path in found):
            found.add(Path(file).parent if Path(file).stem == "__init__" else Path(file))
        for place in () if file or "." in name else getattr(module, "__path__", ()):
            found.add(Path(place))
    return tuple(sorted(found))


def main() -> None:
    """Started by process.py as ``python -m app.jobs.forkserver FD``; the first message says what to be."""
    die_with_parent()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    start = json.loads(control.recv(LONGEST_ORDER))
    sys.path[:] = start["sys_path"]
    user = None
    if os.geteuid() == 0:
        user = next(number for number in users_of(start["worker"]) if _is_mapped(number))
    else:
        with suppress(OSError):  # each namespace that is then refused is told of by every job
            enter_user_namespace()
            _be_first()
    die_with_parent()  # a change of credentials clears it
    close_to_others()
    server = Forkserver(control, tuple(map(Path, start["hidden"])), user)
    with loading():
        for module in start["preload"]:
            importlib.import_module(module)
    server.readable = visible_files()
    server.private = private_memory(os.getpid())
    server.serve()
    os._exit(0)  # what libraries do at the end of a process is of no use here


def _be_first() -> None:
    """Be the first process of a pid namespace that belongs to the user namespace: only to such a one can be returned
    from the namespaces of jobs. The process that was started waits, and ends as this one does. Raises OSError."""
    unshare(CLONE_NEWPID | CLONE_NEWNS)
    pid = os.fork()
    if pid:
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os._exit(status if status >= 0 else 1)
    mount("none", Path("/"), None, MS_REC | MS_SLAVE)
    mount("proc", Path("/proc"), "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)


def _is_mapped(user: int) -> bool:
    """Whether this user namespace has such a number (user_namespaces(7))."""
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        first, _, length = map(int, line.split())
        if first <= user < first + length:
            return True
    return False


if __name__ == "__main__":
    main()
