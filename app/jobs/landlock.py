"""Landlock: which files a process may read and write, kept by the kernel, without any privilege (Linux 5.13 and later).

Beside the mount namespace a second wall; where namespaces are refused, the only one around files.
"""

import ctypes
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from app.processes import checked, libc

# linux/landlock.h; the numbers of the system calls are those of every architecture
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
CREATE_RULESET_VERSION = 1
RULE_PATH_BENEATH = 1
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
TRUNCATE, IOCTL_DEV = 1 << 14, 1 << 15
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
"""Rights that a rule on a file may name; all others are about directories."""
FILE_RIGHTS = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF, 5: 0xFFFF}
"""All rights about files that an ABI knows; later ones add none that matter here."""
NETWORK_RIGHTS = 0b11
"""bind and connect of TCP (ABI 4)."""
SCOPES = 0b11
"""No abstract unix socket and no signal leaves the domain (ABI 6)."""


def version() -> int:
    """The ABI that the kernel offers. Raises OSError where there is none."""
    found = libc().syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(CREATE_RULESET_VERSION))
    if found < 0:
        checked(found)
    return int(found)


def restrict_files(readable: Iterable[Path], writable: Iterable[Path], *, network: bool) -> int:
    """Leave this process nothing but these files and directories, for good; gives the ABI. Raises OSError.

    What does not exist is left out. Wants PR_SET_NO_NEW_PRIVS.
    """
    abi = version()
    rights = FILE_RIGHTS[min(abi, max(FILE_RIGHTS))]
    attributes = _Ruleset(rights, 0 if network or abi < 4 else NETWORK_RIGHTS, SCOPES if abi >= 6 else 0)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    ruleset = libc().syscall(CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(size), ctypes.c_uint32(0))
    if ruleset < 0:
        checked(ruleset)
    try:
        for paths, allowed in ((readable, EXECUTE | READ_FILE | READ_DIR), (writable, rights)):
            for path in paths:
                _allow(ruleset, path, allowed & rights)
        checked(libc().syscall(RESTRICT_SELF, ruleset, ctypes.c_uint32(0)))
    finally:
        os.close(ruleset)
    return abi


def _allow(ruleset: int, path: Path, allowed: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            allowed &= OF_FILES
        rule = _Rule(allowed, fd)
        checked(libc().syscall(ADD_RULE, ruleset, RULE_PATH_BENEATH, ctypes.byref(rule), ctypes.c_uint32(0)))
    finally:
        os.close(fd)


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Rule(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))
