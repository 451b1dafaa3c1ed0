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


def fill_disk_unseen(directory: Any, _: SupervisorLine) -> None:
    """A directory that can be written in and not listed."""
    place = Path(directory, "closed")
    place.mkdir()
    place.chmod(0o300)
    fill_disk(place, _)


def fill_disk_far_down(directory: Any, _: SupervisorLine) -> None:
    """Below more directories than a path can name."""
    os.chdir(directory)
    for _number in range(200):
        os.mkdir("d" * 50)
        os.chdir("d" * 50)
    fill_disk(".", _)


def fill_disk_unnamed(directory: Any, _: SupervisorLine) -> None:
    """Files that are deleted and held open."""
    held = []
    for number in range(1_000):
        path = Path(directory, str(number))
        file = path.open("wb", buffering=0)
        path.unlink()
        file.write(b"x" * MEBI)
        held.append(file)
    time.sleep(30)


def claim_disk(directory: Any, _: SupervisorLine) -> None:
    """A file that says to be larger than it is: whoever takes it over reads and stores all of it."""
    with Path(directory, "sparse").open("wb") as file:
        file.truncate(1 << 40)
    time.sleep(30)


def print_without_end(_: Any, __: SupervisorLine) -> None:
    for _number in range(1_000):
        os.write(1, b"x" * MEBI)
    time.sleep(30)


def fill_shared_memory(_: Any, __: SupervisorLine) -> int:
    """MiB that fit into /dev/shm, where they are nobody's memory."""
    for number in range(2_000):
        try:
            Path(f"/dev/shm/{number}").write_bytes(b"x" * MEBI)
        except OSError:
            return number
    return 2_000


def steer_others(_: Any, __: SupervisorLine) -> Reached:
    """Limits, priorities and processors of whoever runs as the same user: a limit that is low enough kills."""
    strangers = {int(place.name) for place in Path("/proc").iterdir() if place.name.isdigit()} | {os.getppid()}
    libc = ctypes.CDLL(None, use_errno=True)
    reached = []
    for pid in strangers - {0, os.getpid()}:
        low = (ctypes.c_uint64 * 2)(0, 0)
        for name, call in {
            "limit": lambda p=pid, low=low: libc.prlimit(p, 4, low, None),
            "affinity": lambda p=pid: libc.sched_setaffinity(p, 8, (ctypes.c_uint64 * 1)(1)),
            "scheduler": lambda p=pid: libc.sched_setscheduler(p, 5, (ctypes.c_int * 1)(0)),
            "parameters": lambda p=pid: libc.sched_setparam(p, (ctypes.c_int * 1)(0)),
            "priority": lambda p=pid: libc.setpriority(0, p, 19),
            "pages": lambda p=pid: libc.syscall(256, p, 1, (ctypes.c_uint64 * 1)(1), (ctypes.c_uint64 * 1)(1)),
        }.items():
            if call() >= 0:
                reached.append(f"{name} of {pid}")
    for name, call in {
        "priority of a user": lambda: libc.setpriority(2, 0, 19),
        "disk priority of a user": lambda: libc.syscall(251, 3, os.getuid(), 7 | 2 << 13),
    }.items():
        if call() >= 0:
            reached.append(name)
    return reached


def send_descriptors(directory: Any, line: SupervisorLine) -> None:
    """Open files over the line, for the supervisor to hold, and then a word that it understands."""
    held = [os.open(directory, os.O_RDONLY) for _number in range(100)]
    word = b'{"kind":"progress","stage":"load","progress":0.1}\n'
    for _number in range(50):
        with suppress(OSError):  # too many of this user's are on their way
            socket.send_fds(line._line, [word], held)
    for fd in held:
        os.close(fd)


def run_memory(_: Any, __: SupervisorLine) -> Reached:
    """A program that lies nowhere: in memory, or where it may write."""
    libc = ctypes.CDLL(None, use_errno=True)
    program = Path(os.environ["TMPDIR"], "program")
    program.write_bytes(Path("/bin/true").read_bytes())
    program.chmod(0o755)
    empty = (ctypes.c_char_p * 1)(None)
    calls = {
        "memfd": lambda: libc.syscall(319, b"program", 0),
        "memfd_secret": lambda: libc.syscall(447, 0),
        "userfaultfd": lambda: libc.syscall(323, 1),
        "execveat": lambda: libc.syscall(322, os.open(program, os.O_RDONLY), b"", empty, empty, 0x1000),
        "execve": lambda: libc.execve(bytes(program), empty, empty),
        "loader": lambda: libc.execve(b"/lib64/ld-linux-x86-64.so.2", empty, empty),
        "process_vm_writev": lambda: libc.syscall(311, os.getppid(), None, 0, None, 0, 0),
        "pidfd_open": lambda: libc.syscall(434, os.getppid(), 0),
        "kcmp": lambda: libc.syscall(312, os.getpid(), os.getppid(), 0, 0, 0),
        "io_uring": lambda: libc.syscall(425, 8, (ctypes.c_char * 120)()),
        "fanotify": lambda: libc.syscall(300, 0, 0),
        "open_by_handle_at": lambda: libc.syscall(304, -100, (ctypes.c_char * 24)(), 0),
        "clone3": lambda: libc.syscall(435, (ctypes.c_uint64 * 11)(0x10000000), 88),
        "x32": lambda: libc.syscall(0x40000000 | 39),
        "setpgid": lambda: libc.setpgid(0, 0),
        "setsid": lambda: libc.setsid() if os.getsid(0) != os.getpid() else -1,
        "personality": lambda: libc.personality(0x0040000),
        "chroot": lambda: libc.chroot(b"/tmp"),
        "shmget": lambda: libc.shmget(0, 4096, 0o1600),
        "message queue": lambda: libc.syscall(240, b"q", 0o102, 0o600, None),
        "perf": lambda: libc.syscall(298, (ctypes.c_char * 128)(), 0, -1, -1, 0),
        "device": lambda: os.mknod(Path(os.environ["TMPDIR"], "disk"), 0o60600, os.makedev(8, 0)) or 0,
    }
    reached = []
    for name, call in calls.items():
        with suppress(OSError):
            if call() >= 0:
                reached.append(name)
    return reached


def leave_through_descriptors(_: Any, __: SupervisorLine) -> Reached:
    """Directories, programs and descriptors of others that an open file, or a link of /proc, leads to; devices."""
    places = [f"/proc/self/fd/{name}/../.." for name in os.listdir("/proc/self/fd")]
    places += [f"/proc/{pid}/{link}" for pid in (1, os.getppid()) for link in ("root/etc/shadow", "cwd", "exe", "fd/3")]
    places += ["/proc/self/root/etc/shadow", "/proc/kcore", "/proc/sysrq-trigger"]
    places += [f"/dev/{name}" for name in ("mem", "kmsg", "fuse", "sda", "vda", "loop0", "kvm", "tun", "console")]
    return _reached(**{place: lambda p=place: os.close(os.open(p, os.O_RDONLY)) for place in places})


def leave_what_cannot_be_removed(directory: Any, _: SupervisorLine) -> None:
    """Names that are no text, directories that are closed, and more of them below each other than a path can name."""
    names = os.fsencode(directory)
    for name in (b"\xff\xfe\n\x1b[2J", b"-rf", b"*", b" ", b"n" * 255):
        os.mkdir(names + b"/" + name)
        os.symlink(b"/", names + b"/" + name + b"/link" if len(name) < 200 else names + b"/link")
        os.mkfifo(names + b"/" + name + b"/pipe")
    for place in (Path(directory), Path(os.environ["TMPDIR"])):
        os.chdir(place)
        for _number in range(3_000):
            os.mkdir("d")
            os.chdir("d")
        os.chmod("..", 0)
        os.chmod(".", 0)
    Path(directory, "closed").mkdir()
    Path(directory, "closed", "file").touch()
    Path(directory, "closed").chmod(0)
    os.chdir("/")
    Path(directory).chmod(0o500)
