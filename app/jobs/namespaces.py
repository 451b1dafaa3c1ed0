"""Namespaces of a conversion's process: processes, files, network, ipc and host name of its own (namespaces(7)).

Root makes them directly; an ordinary user by way of a user namespace, which the forkserver enters once.
"""

import ctypes
import errno
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from app.processes import checked, libc

# linux/sched.h
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
# linux/mount.h
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_SLAVE = 2, 4, 8, 4096, 16384, 1 << 19
MNT_DETACH = 2
MOUNT_SETATTR, PIVOT_ROOT = 442, {"x86_64": 155, "aarch64": 41}
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID = 0x1, 0x2

SHARED_MEMORY = 64 << 20
"""Bytes of the private /dev/shm. What lies there is no process's memory, so there must not be much of it."""
INODES = 1 << 14
"""Files and directories of each file system in memory, and what names and attributes they have: a kilobyte for each."""
DEVICES = ("null", "zero", "full", "random", "urandom")
OF_ETC = ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "passwd", "group", "nsswitch.conf", "mime.types")
"""All of /etc that libraries look at: where libraries lie, what time it is, what users are called."""
OF_THE_SYSTEM = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin", "/sys/devices/system", "/etc/alternatives")


def enter_user_namespace() -> None:
    """Have, inside, what root has, to make the other namespaces with; outside nothing changes. Raises OSError."""
    uid, gid = os.geteuid(), os.getegid()
    unshare(CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def unshare(flags: int) -> None:
    checked(libc().unshare(flags))


class ProcessNamespace:
    """A pid namespace whose first process waits for us to close a pipe; with it the kernel ends all others in it.

    That process is a program that copies its input to nowhere, and not the conversion itself, because the first process
    of a namespace ignores signals, its own abort too.
    """

    def __init__(self) -> None:
        own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        try:
            unshare(CLONE_NEWPID)
            try:
                self._first = subprocess.Popen(
                    _waiting_program(), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env={}, cwd="/"
                )
            except BaseException:
                checked(libc().setns(own, CLONE_NEWPID))
                raise
        except BaseException:
            os.close(own)
            raise
        self._own = own

    @property
    def first(self) -> int:
        return self._first.pid

    def leave(self) -> None:
        """From now on this process's children are made where it is itself again."""
        checked(libc().setns(self._own, CLONE_NEWPID))
        os.close(self._own)

    def kill(self) -> None:
        self._first.kill()

    def gone(self) -> bool:
        """Whether nothing is left in it. Its first process ends after all others have."""
        if self._first.poll() is None:
            return False
        if self._first.stdin:
            self._first.stdin.close()
        return True


def _waiting_program() -> Sequence[str]:
    cat = shutil.which("cat", path="/usr/bin:/bin")
    return (cat,) if cat else (sys.executable, "-I", "-S", "-c", "import sys; sys.stdin.buffer.read()")


def leave_network() -> None:
    """Into a network namespace in which there is nothing, not even loopback."""
    unshare(CLONE_NEWNET)


def leave_ipc() -> None:
    """Away from the machine's shared memory and message queues, and from its name."""
    unshare(CLONE_NEWIPC | CLONE_NEWUTS)
    socket.sethostname("conversion")


@dataclass(frozen=True)
class View:
    """The files that a process can see. ``hidden`` is not seen, even where it lies within ``readable``."""

    readable: tuple[Path, ...]
    writable: tuple[Path, ...]
    hidden: tuple[Path, ...]
    temporary: Path
    """What is /tmp inside."""
    root: Path
    """An empty directory, on which the new root is put together."""

    def enter(self, *, own_processes: bool) -> None:
        """Make this view the only one that this process has. Raises OSError.

        ``own_processes``: this process is in a pid namespace of its own, so that /proc can show that one alone.
        """
        unshare(CLONE_NEWNS)
        mount("none", Path("/"), None, MS_REC | MS_SLAVE)
        mount("tmpfs", self.root, "tmpfs", MS_NOSUID | MS_NODEV, f"mode=755,size=4m,nr_inodes={INODES}")
        for place in ("/tmp", "/var/tmp"):  # first, because what is shown may lie below
            self._bind(self.temporary, read_only=False, target=Path(place))
        within = {path for path in self.readable if any(path.is_relative_to(hidden) for hidden in self.hidden)}
        for path in outermost(set(self.readable) - within):
            self._bind(path, read_only=True)
        for path in self.hidden:
            if (self.root / path.relative_to("/")).is_dir():
                mount(
                    "tmpfs", self._inside(path), "tmpfs", MS_NOSUID | MS_NODEV, f"mode=755,size=64k,nr_inodes={INODES}"
                )
        for path in outermost(within):
            self._bind(path, read_only=True)
        for path in self.writable:
            self._bind(path, read_only=False)
        self._make_devices()
        self._make_processes(own_processes)
        self._become_root()

    def _bind(self, path: Path, *, read_only: bool, target: Path | None = None) -> None:
        """Show a file or directory, where it exists, at its own place or at ``target``."""
        if not path.exists():
            return
        place = self._inside(target or path)
        if target is None and path.is_symlink():
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.is_symlink():
                place.symlink_to(os.readlink(path))
            return
        if path.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        elif not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
        mount(str(path), place, None, MS_BIND | MS_REC)
        set_attributes(place, MOUNT_ATTR_NOSUID | (MOUNT_ATTR_RDONLY if read_only else 0), recursive=True)

    def _make_devices(self) -> None:
        for name in DEVICES:
            self._bind(Path("/dev") / name, read_only=False)
        memory = self._inside(Path("/dev/shm"))
        memory.mkdir(parents=True, exist_ok=True)
        options = f"mode=1777,size={SHARED_MEMORY},nr_inodes={INODES}"
        mount("tmpfs", memory, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options)
        for name, to in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
            self._inside(Path("/dev") / name).symlink_to(to)

    def _make_processes(self, own: bool) -> None:
        place = self._inside(Path("/proc"))
        place.mkdir(parents=True, exist_ok=True)
        if own:
            with suppress(OSError):  # a container that masks parts of /proc lets nobody have a whole one
                mount("proc", place, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
                return
        mount("/proc", place, None, MS_BIND | MS_REC)

    def _become_root(self) -> None:
        os.chdir(self.root)
        number = PIVOT_ROOT.get(os.uname().machine)
        if number is None:
            raise OSError(errno.ENOSYS, f"pivot_root of {os.uname().machine}")
        checked(libc().syscall(number, b".", b"."))
        checked(libc().umount2(b".", MNT_DETACH))
        os.chdir("/")
        set_attributes(Path("/"), MOUNT_ATTR_RDONLY, recursive=False)

    def _inside(self, path: Path) -> Path:
        return self.root / path.relative_to("/")


def outermost(paths: Iterable[Path]) -> list[Path]:
    """The paths that lie within no other of them."""
    kept: list[Path] = []
    for path in sorted(set(paths)):
        if not any(path.is_relative_to(other) for other in kept):
            kept.append(path)
    return kept


def mount(source: str, target: Path, kind: str | None, flags: int, options: str = "") -> None:
    """mount(2). Raises OSError, with the target's name."""
    words = [word.encode() if word is not None else None for word in (source, str(target), kind)]
    try:
        checked(libc().mount(*words, flags, options.encode()))
    except OSError as error:
        raise OSError(error.errno, f"mount {target}: {error.strerror}") from None


def set_attributes(target: Path, attributes: int, *, recursive: bool) -> None:
    """mount_setattr(2), Linux 5.12 and later: add attributes to a mount. Raises OSError."""
    wanted = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)  # struct mount_attr: set, clear, propagation, user namespace
    flags = AT_RECURSIVE if recursive else 0
    size = ctypes.c_size_t(ctypes.sizeof(wanted))
    checked(libc().syscall(MOUNT_SETATTR, AT_FDCWD, os.fsencode(target), flags, ctypes.byref(wanted), size))
