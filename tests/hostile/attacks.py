"""What a hostile plug-in tries from inside a conversion process. Each gives what it reached: it should be nothing."""

import ctypes
import fcntl
import mmap
import os
import resource
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
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


def _made(calls: Mapping[str, Callable[[], int]]) -> Reached:
    """The system calls that gave no error."""
    reached = []
    for name, call in calls.items():
        with suppress(OSError):
            if call() >= 0:
                reached.append(name)
    return reached


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
    return [*sockets, *signalled, *traced, *_reached(pid1=lambda: os.kill(1, signal.SIGCONT) if _is_host() else False)]


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


def share_memory_unseen(_: Any, __: SupervisorLine) -> int:
    """The same where nobody else may look at this process."""
    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
    return share_memory(_, __)


def share_memory_without_first_thread(_: Any, __: SupervisorLine) -> None:
    """The same in a process whose first thread has ended."""
    threading.Thread(target=share_memory, args=(_, __)).start()
    ctypes.CDLL(None).syscall(60 if os.uname().machine == "x86_64" else 93, 0)


def share_memory_as_a_sibling(_: Any, __: SupervisorLine) -> None:
    """The same in a process whose parent is that of its maker."""
    if ctypes.CDLL(None).syscall(56, 0x8000 | signal.SIGCHLD, 0, 0, 0, 0) == 0:
        share_memory(_, __)
        os._exit(0)
    share_memory(_, __)


def tabulate_memory(_: Any, __: SupervisorLine) -> int:
    """Tables of pages: one of 4 KiB for each 2 MiB of which a byte is read."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    read, chunk = 0, 64 << 30
    while read * 4096 < 400 * MEBI:
        place = libc.mmap(None, chunk, mmap.PROT_READ, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, -1, 0)
        libc.madvise(place, chunk, 15)  # MADV_NOHUGEPAGE
        for offset in range(0, chunk, 2 * MEBI):
            ctypes.string_at(place + offset, 1)
            read += 1
    time.sleep(30)
    return read


def hold_descriptors(_: Any, __: SupervisorLine) -> None:
    """Pipes of several processes, none of which has more descriptors than it may."""
    for _number in range(10):
        if os.fork() == 0:
            with suppress(OSError):
                while True:
                    os.write(os.pipe()[1], b"x")
            time.sleep(30)
            os._exit(0)
    time.sleep(30)


def map_without_end(_: Any, __: SupervisorLine) -> None:
    """Mappings of several processes, none of which has more than it may."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
    for _number in range(60_000):  # each of another kind than the one before, so that they stay apart
        libc.mmap(None, 4096, _number % 2, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    for _number in range(10):
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
    time.sleep(30)


def hide_in_the_kernel(_: Any, __: SupervisorLine) -> Reached:
    """Objects of the kernel that it keeps in memory which no process is told to have."""
    if os.uname().machine != "x86_64":
        return []
    libc = ctypes.CDLL(None, use_errno=True)
    reading, writing = os.pipe()
    own = os.open(Path(os.environ["TMPDIR"], "own"), os.O_RDWR | os.O_CREAT)
    os.pwrite(own, bytes(4096), 0)
    block = mmap.mmap(-1, 4096)
    address = ctypes.addressof(ctypes.c_char.from_buffer(block))
    piece = (ctypes.c_uint64 * 2)(address, 4096)
    lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 1, 0)
    instruction = (ctypes.c_uint64 * 1)(0x7FFF000000000006)
    program = (ctypes.c_uint64 * 2)(1, ctypes.addressof(instruction))
    calls = {
        "socketpair": lambda: libc.socketpair(socket.AF_UNIX, socket.SOCK_STREAM, 0, (ctypes.c_int * 2)()),
        "epoll_create1": lambda: libc.epoll_create1(0),
        "epoll_create": lambda: libc.syscall(213, 1),
        "inotify_init": lambda: libc.inotify_init(),
        "inotify_init1": lambda: libc.inotify_init1(0),
        "vmsplice": lambda: libc.vmsplice(writing, piece, 1, 0),
        "splice": lambda: libc.splice(own, None, writing, None, 1, 0),
        "tee": lambda: libc.tee(reading, writing, 1, 0),
        "sendfile": lambda: libc.sendfile(writing, own, None, 1),
        "lock": lambda: fcntl.fcntl(own, fcntl.F_SETLK, lock) and 0,
        "lock of a description": lambda: fcntl.fcntl(own, 37, lock) and 0,
        "lease": lambda: fcntl.fcntl(own, fcntl.F_SETLEASE, fcntl.F_WRLCK),
        "notice": lambda: fcntl.fcntl(os.open("/", os.O_RDONLY), fcntl.F_NOTIFY, fcntl.DN_CREATE),
        "futex hash": lambda: libc.prctl(78, 1, 1 << 20, 0, 0),
        "filter": lambda: libc.prctl(22, 2, ctypes.byref(program), 0, 0),
        "seccomp": lambda: libc.syscall(317, 1, 0, ctypes.byref(program)),
        "landlock": lambda: libc.syscall(444, (ctypes.c_uint64 * 1)(1), 8, 0),
        "mbind": lambda: libc.syscall(237, ctypes.c_void_p(address), 4096, 0, None, 0, 0),
        "set_mempolicy": lambda: libc.syscall(238, 0, None, 0),
        "io_setup": lambda: libc.syscall(206, 1, (ctypes.c_uint64 * 1)()),
        "timer": lambda: libc.timer_create(1, None, (ctypes.c_uint64 * 1)()),
        "mlock": lambda: libc.mlock(ctypes.c_void_p(address), 4096),
    }
    return _made(calls)


def fill_with_empty_files(_: Any, __: SupervisorLine) -> int:
    """Files that have no bytes in /dev/shm, where they take memory all the same."""
    for number in range(100_000):
        try:
            os.close(os.open(f"/dev/shm/{number}", os.O_CREAT | os.O_WRONLY))
        except OSError:
            return number
    return 100_000


def end_itself(way: Any, _: SupervisorLine) -> str:
    """With SIGKILL, or as if nobody knew how."""
    ENDINGS[way]()
    time.sleep(2)
    return "alive"


def _by_timer() -> None:
    event = struct.pack("qii48x", 0, signal.SIGKILL, 0)
    timer = ctypes.c_void_p()
    libc = ctypes.CDLL(None)
    if libc.timer_create(1, event, ctypes.byref(timer)) == 0:
        libc.timer_settime(timer, 0, (ctypes.c_long * 4)(0, 0, 0, 1_000_000), None)


def _by_limit() -> None:
    signal.signal(signal.SIGXCPU, signal.SIG_IGN)
    for call in (lambda: resource.setrlimit(resource.RLIMIT_CPU, (1, 1)), _limit_directly):
        with suppress(ValueError, OSError):
            call()
    deadline = time.process_time() + 2.5
    while time.process_time() < deadline:
        pass


def _limit_directly() -> None:
    ctypes.CDLL(None).syscall(160 if os.uname().machine == "x86_64" else 164, 0, (ctypes.c_uint64 * 2)(1, 1))


def _by_child_that_ends() -> None:
    number = 56 if os.uname().machine == "x86_64" else 220
    if ctypes.CDLL(None).syscall(number, int(signal.SIGKILL), 0, 0, 0, 0) == 0:
        os._exit(0)


def _by_child_that_kills() -> None:
    parent = os.getpid()
    if os.fork() == 0:
        os.kill(parent, signal.SIGKILL)
        os._exit(0)


def _by_descriptor() -> None:
    reading, writing = os.pipe()
    with suppress(OSError):
        fcntl.fcntl(reading, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(reading, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(reading, fcntl.F_SETFL, os.O_ASYNC)
        os.write(writing, b"x")


def _by_name_of_a_thread() -> None:
    found: list[int] = []
    thread = threading.Thread(target=lambda: (found.append(threading.get_native_id()), time.sleep(1)))
    thread.start()
    while not found:
        time.sleep(0.01)
    os.kill(found[0], signal.SIGKILL)


ENDINGS: dict[str, Callable[[], object]] = {
    "its number": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "its group": lambda: os.kill(0, signal.SIGKILL),
    "the number of a thread": _by_name_of_a_thread,
    "a timer": _by_timer,
    "a limit": _by_limit,
    "a child that ends": _by_child_that_ends,
    "a child that kills": _by_child_that_kills,
    "a descriptor": _by_descriptor,
    "an exit as if its forkserver were gone": lambda: os._exit(255),
}


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
    return _made(calls)


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
