"""What a process of ours asks of the Linux kernel and of Python for itself."""

import ctypes
import gc
import os
import resource
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 1, 4, 36
"""linux/prctl.h"""


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the thread that made it ends. Raises OSError."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def end_with_parent() -> None:
    """In a process that was forked to work for this one: SIGTERM ends it, whatever this one makes of that, and so does
    the end of the thread that forked it. Raises OSError."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with_parent()


def close_to_others() -> None:
    """Let no process of the same user read this one's memory and environment (ptrace(2), /proc/pid)."""
    prctl(PR_SET_DUMPABLE, 0)


def prctl(option: int, value: int) -> None:
    """prctl(2) with one argument. Raises OSError."""
    checked(libc().prctl(option, value, 0, 0, 0))


def give_back_memory() -> None:
    """Return what was freed to the kernel: malloc_trim(3), where the C library has it."""
    if hasattr(libc(), "malloc_trim"):
        libc().malloc_trim(0)


@contextmanager
def loading() -> Iterator[None]:
    """Load modules inside without collecting garbage, and never again look for any in what was loaded: it stays, and
    passes over it take a fifth of the time that importing takes."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def memory_ceiling(more: int) -> Iterator[None]:
    """Inside, this process can take ``more`` bytes beyond what it has needed so far; then allocating fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    # proc(5): resident is the second, data and stack the sixth figure, in pages.
    pages = [int(pages) * resource.getpagesize() for pages in Path("/proc/self/statm").read_text().split()]
    needed_before = max(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - pages[1])
    wanted = pages[5] + max(more, needed_before)
    if soft != resource.RLIM_INFINITY:
        wanted = min(wanted, soft)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def apart(work: Callable[[], bytes], seconds: float) -> bytes:
    """What ``work`` gives, in a forked process that shares nothing but memory as it was, so that a crash is its own.

    ``work`` must not need threads. Raises ChildProcessError with what it raised, or where it ended without an answer.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _answer(work, writing)
    os.close(writing)
    deadline, content = time.monotonic() + seconds, b""
    try:
        while select.select([reading], [], [], max(0.0, deadline - time.monotonic()))[0]:
            chunk = os.read(reading, 1 << 20)
            if not chunk:
                break
            content += chunk
        else:
            raise ChildProcessError(f"no answer within {seconds:g} s")
    finally:
        os.close(reading)
        os.kill(pid, signal.SIGTERM)
        _, status = os.waitpid(pid, 0)
    if content[:1] != b"=":
        why = content[1:].decode(errors="replace")
        raise ChildProcessError(why or f"it ended with status {os.waitstatus_to_exitcode(status)}")
    return content[1:]


def _answer(work: Callable[[], bytes], writing: int) -> None:
    """The other process. It ends here whatever happens, and holds no line of this one open."""
    try:
        end_with_parent()
        os.closerange(3, writing)
        os.closerange(writing + 1, 1 << 16)
        try:
            told = b"=" + work()
        except Exception as error:  # noqa: BLE001 - told to the process that asked
            told = b"!" + f"{type(error).__name__}: {error}".encode()
        with os.fdopen(writing, "wb") as answer:
            answer.write(told)
    finally:
        os._exit(0)


def memory_left() -> int | None:
    """Bytes of private memory that this process may take beside what it has; None where nothing bounds it."""
    soft, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if soft == resource.RLIM_INFINITY:
        return None
    return max(0, soft - int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize())


@cache
def libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def checked(result: int) -> None:
    """Raises OSError with the C library's errno unless a call gave 0."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
