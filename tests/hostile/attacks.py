"""What a hostile plug-in tries from inside a conversion process. Each gives what it reached: it should be nothing."""

import ctypes
import mmap
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.domain.conversion import Stage
from app.jobs.child import SupervisorLine

Reached = list[str]
MEBI = 1 << 20


def _reached(**attempts: Callable[[], object]) -> Reached:
    """The attempts that did not fail."""
    succeeded = []
    for name, attempt in attempts.items():
        try:
            result = attempt()
        except (OSError, ValueError):
            continue
        if result is not False:
            succeeded.append(name)
    return succeeded


def open_sockets(place: Any, _: SupervisorLine) -> Reached:
    """``place``: a unix socket that somebody listens at, and a port of loopback."""
    path, port = place

    def datagram() -> None:
        one, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        one.sendto(b"x", path)

    return _reached(
        internet=lambda: socket.create_connection(("127.0.0.1", port), timeout=2),
        unix=lambda: socket.socket(socket.AF_UNIX).connect(path),
        abstract=lambda: socket.socket(socket.AF_UNIX).bind("\0recast-test"),
        netlink=lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
        datagram=datagram,
    )


def read_secrets(secret: Any, _: SupervisorLine) -> Reached:
    """Environments of all processes that can be seen, and their memory."""
    found = [f"os.environ {name}" for name, value in os.environ.items() if secret in value]
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                if secret.encode() in (place / "environ").read_bytes():
                    found.append(f"environ of {place.name}")
                if int(place.name) != os.getpid():
                    (place / "mem").open("rb")
                    found.append(f"memory of {place.name}")
            except OSError:
                continue
    return found


def read_files(paths: Any, _: SupervisorLine) -> Reached:
    """Files, and what directories hold beside the way to its own."""
    own = str(Path(os.readlink("/proc/self/fd/1")).parent)

    def read(path: str) -> bool:
        if not Path(path).is_dir():
            return bool(Path(path).read_bytes())
        return any(not own.startswith(str(Path(path, name))) for name in os.listdir(path))

    return _reached(**{path: lambda p=path: read(p) for path in paths})


def write_files(paths: Any, _: SupervisorLine) -> Reached:
    own = Path(os.environ["TMPDIR"], "own")

    def put(directory: str) -> bool:
        place = Path(directory)
        if place.samefile(own.parent):
            return False  # its own /tmp
        (place / "written").write_text("x")
        return True

    own.write_text("x")  # where it may write, it can
    return _reached(**{path: lambda p=path: put(p) for path in paths})


def own_results(directory: Any, _: SupervisorLine) -> Any:
    Path(directory, "written").write_text("x")
    return Path(directory, "written").read_text()


def fork_without_end(_: Any, __: SupervisorLine) -> int:
    """How many processes it could have at once; 400 are tried."""
    for number in range(400):
        try:
            if os.fork() == 0:
                time.sleep(30)
                os._exit(0)
        except OSError:
            return number
    return 400


def outlive(directory: Any, _: SupervisorLine) -> None:
    """Leave processes behind, in a session and a group of their own where that is possible."""
    for leave in (lambda: None, os.setsid, lambda: os.setpgid(0, 0)):
        if os.fork() == 0:
            with suppress(OSError):
                leave()
            if os.fork() == 0:
                for number in range(600):
                    Path(directory, f"alive-{os.getpid()}").write_text(str(number))
                    time.sleep(0.05)
            os._exit(0)
    time.sleep(0.3)


def reach_others(_: Any, line: SupervisorLine) -> Reached:
    """Signal, trace or read any process but itself; use any socket but its line."""
    sockets = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:") and int(name) != line._line.fileno():
                sockets.append(f"socket {name}")
        except OSError:
            continue
    strangers = [int(place.name) for place in Path("/proc").iterdir() if place.name.isdigit()]
    strangers = [pid for pid in (*strangers, os.getppid()) if pid not in (0, os.getpid())]
    libc = ctypes.CDLL(None, use_errno=True)
    signalled = _reached(**{f"signal {pid}": lambda p=pid: os.kill(p, signal.SIGCONT) for pid in strangers if pid != 1})
    traced = [f"trace {pid}" for pid in strangers if libc.ptrace(16, pid, 0, 0) == 0]
    return [*sockets, *signalled, *traced, *_reached(pid1=lambda: os.kill(1, signal.SIGKILL) if _is_host() else False)]


def _is_host() -> bool:
    return os.getpid() > 10


def gain_privileges(_: Any, __: SupervisorLine) -> Reached:
    libc = ctypes.CDLL(None, use_errno=True)
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    gained = [name for name in ("CapEff", "CapPrm", "CapInh", "CapAmb") if int(status[name], 16)]
    gained += ["new privileges"] if status["NoNewPrivs"] != "1" else []
    gained += ["no filter"] if status["Seccomp"] != "2" else []
    for name, call in {
        "user namespace": lambda: libc.unshare(0x10000000),
        "mount": lambda: libc.mount(b"none", b"/tmp", b"tmpfs", 0, None),
        "clone": lambda: libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0),
        "keyctl": lambda: libc.syscall(250, 0, -3, 1),
        "bpf": lambda: libc.syscall(321, 0, 0, 0),
        "io_uring": lambda: libc.syscall(425, 1, 0),
        "memfd": lambda: libc.syscall(319, b"x", 0),
    }.items():
        if call() >= 0:
            gained.append(name)
    return gained + _reached(
        exec=lambda: subprocess.run(["/bin/true"], check=True), setuid=lambda: os.setuid(0) if os.getuid() else False
    )


def share_memory(_: Any, __: SupervisorLine) -> int:
    """Memory that no limit of one process counts, 400 MiB of it."""
    kept = []
    for _number in range(100):
        block = mmap.mmap(-1, 4 * MEBI, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
        for offset in range(0, len(block), 4096):
            block[offset] = 1
        kept.append(block)
    time.sleep(30)
    return len(kept)


def spread_memory(_: Any, __: SupervisorLine) -> None:
    """Memory of several processes, each of which stays below the limit."""
    for _number in range(4):
        if os.fork() == 0:
            kept = bytearray(b"x") * (70 * MEBI)
            time.sleep(30)
            os._exit(len(kept) % 2)
    time.sleep(30)


def spin(_: Any, __: SupervisorLine) -> None:
    """Processor time of several processes, none of which takes much of it."""
    if os.fork() == 0:
        os.fork()
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        pass


def spin_later(_: Any, line: SupervisorLine) -> None:
    """In a stage that is not bounded, and then in one that is."""
    line.progress(Stage.verify, 0.5)
    began = time.process_time()
    while time.process_time() < began + 2:
        pass
    line.progress(Stage.load, 0.1)
    while True:
        pass


def fill_disk(directory: Any, _: SupervisorLine) -> None:
    for number in range(1_000):
        Path(directory, str(number)).write_bytes(b"x" * MEBI)
    time.sleep(30)
