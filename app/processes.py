"""What a process of ours asks of the Linux kernel for itself."""

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1
"""linux/prctl.h"""


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the thread that made it ends. Raises OSError."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def prctl(option: int, value: int) -> None:
    """prctl(2) with one argument. Raises OSError."""
    checked(libc().prctl(option, value, 0, 0, 0))


def give_back_memory() -> None:
    """Return what was freed to the kernel: malloc_trim(3), where the C library has it."""
    if hasattr(libc(), "malloc_trim"):
        libc().malloc_trim(0)


def libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def checked(result: int) -> None:
    """Raises OSError with the C library's errno unless a call gave 0."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
