"""The system calls that a conversion's process may not make: a seccomp filter, which needs no privilege.

A list of what is refused, not of what is allowed: torch and onnxruntime use what they like of the rest, and so will
their next versions. What is refused is of four kinds: ways to other processes and machines (sockets, the memory of
others, their limits and priorities), ways out of the confinement (namespaces, mounts, a new program, a process group or
a parent of its choice), parts of the kernel that no conversion needs and that are known for their faults (bpf,
io_uring, keyrings, perf), and what the kernel keeps for a process in memory that nobody can count: what lies in
sockets, pages that are in a pipe alone, watches, locks, policies, rules, filters, hashes, and a second table of
descriptors.

No process of a conversion can have SIGKILL sent to any: who sends it is ended with SIGSYS in its place, and what would
have the kernel send it (timers, limits of processor time, a signal of choice for a descriptor or for a child's end) is
refused. So a SIGKILL came from outside, and whose fault the death is need not be guessed (suspicion.py). What a job
starts it ends with SIGTERM.
"""

import ctypes
import errno
import platform
import resource
import signal
from collections.abc import Iterable
from dataclasses import dataclass

from app.processes import checked, libc

PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
"""linux/prctl.h, linux/seccomp.h"""
RET_KILL_PROCESS, RET_ERRNO, RET_ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
"""linux/seccomp.h"""
LOAD, JUMP_EQUAL, JUMP_GREATER_EQUAL, JUMP_ANY_BIT, AND, RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
"""linux/bpf_common.h: BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, ..JGE.., ..JSET.., BPF_ALU|BPF_AND|BPF_K, BPF_RET"""
NUMBER, ARCHITECTURE, ARGUMENT = 0, 4, 16
"""Offsets in struct seccomp_data; each argument has 8 bytes, of which the lower 4 come first."""
CLONE_NEW = 0x7E020080
"""linux/sched.h: every CLONE_NEW... flag: mount, cgroup, uts, ipc, user, pid, net and time namespaces."""
CLONE_FILES, CLONE_PARENT, CLONE_THREAD, EXIT_SIGNAL = 0x400, 0x8000, 0x10000, 0xFF
"""linux/sched.h"""

Instruction = tuple[int, int, int, int]


@dataclass(frozen=True)
class Machine:
    """A processor architecture: its name in linux/audit.h and the numbers of its system calls."""

    audit: int
    numbers: dict[str, int]


# arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h
_COMMON = {
    "pidfd_send_signal": 424, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
    "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433,
    "pidfd_open": 434, "clone3": 435, "pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442,
    "landlock_create_ruleset": 444, "landlock_add_rule": 445, "landlock_restrict_self": 446, "memfd_secret": 447,
    "process_mrelease": 448, "set_mempolicy_home_node": 450,
}  # fmt: skip
MACHINES = {
    "x86_64": Machine(0xC000003E, {
        **_COMMON,
        "shmget": 29, "shmat": 30, "shmctl": 31, "socket": 41, "connect": 42, "accept": 43, "bind": 49, "listen": 50,
        "socketpair": 53, "clone": 56, "execve": 59, "semget": 64, "msgget": 68, "ptrace": 101, "syslog": 103,
        "setpgid": 109, "setsid": 112, "personality": 135, "pivot_root": 155, "adjtimex": 159, "chroot": 161,
        "acct": 163, "settimeofday": 164, "mount": 165, "umount2": 166, "swapon": 167, "swapoff": 168, "reboot": 169,
        "sethostname": 170, "setdomainname": 171, "iopl": 172, "ioperm": 173, "init_module": 175,
        "delete_module": 176, "quotactl": 179, "lookup_dcookie": 212, "clock_settime": 227, "mq_open": 240,
        "kexec_load": 246, "add_key": 248, "request_key": 249, "keyctl": 250, "unshare": 272, "accept4": 288,
        "perf_event_open": 298, "fanotify_init": 300, "name_to_handle_at": 303, "open_by_handle_at": 304,
        "clock_adjtime": 305, "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312,
        "finit_module": 313, "memfd_create": 319, "kexec_file_load": 320, "bpf": 321, "execveat": 322,
        "userfaultfd": 323, "ioctl": 16, "setpriority": 141, "sched_setparam": 142, "sched_setscheduler": 144,
        "sched_setaffinity": 203, "ioprio_set": 251, "migrate_pages": 256, "move_pages": 279, "prlimit64": 302,
        "sched_setattr": 314,
        "kill": 62, "rt_sigqueueinfo": 129, "tkill": 200, "tgkill": 234, "rt_tgsigqueueinfo": 297, "setrlimit": 160,
        "timer_create": 222, "fcntl": 72, "prctl": 157, "seccomp": 317, "epoll_create": 213, "epoll_create1": 291,
        "inotify_init": 253, "inotify_init1": 294, "sendfile": 40, "splice": 275, "tee": 276, "vmsplice": 278,
        "io_setup": 206, "mbind": 237, "set_mempolicy": 238,
    }),
    "aarch64": Machine(0xC00000B7, {
        **_COMMON,
        "lookup_dcookie": 18, "ioctl": 29, "umount2": 39, "mount": 40, "pivot_root": 41, "chroot": 51, "quotactl": 60,
        "acct": 89, "personality": 92, "unshare": 97, "kexec_load": 104, "init_module": 105, "delete_module": 106,
        "clock_settime": 112, "syslog": 116, "ptrace": 117, "reboot": 142, "setpgid": 154, "setsid": 157,
        "sethostname": 161, "setdomainname": 162, "settimeofday": 170, "adjtimex": 171, "mq_open": 180, "msgget": 186,
        "semget": 190, "shmget": 194, "shmctl": 195, "shmat": 196, "socket": 198, "socketpair": 199, "bind": 200,
        "listen": 201, "accept": 202, "connect": 203, "add_key": 217, "request_key": 218, "keyctl": 219, "clone": 220,
        "execve": 221, "swapon": 224, "swapoff": 225, "perf_event_open": 241, "accept4": 242, "fanotify_init": 262,
        "name_to_handle_at": 264, "open_by_handle_at": 265, "clock_adjtime": 266, "setns": 268,
        "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272, "finit_module": 273, "memfd_create": 279,
        "bpf": 280, "execveat": 281, "userfaultfd": 282, "kexec_file_load": 294, "ioprio_set": 30,
        "sched_setparam": 118, "sched_setscheduler": 119, "sched_setaffinity": 122, "setpriority": 140,
        "migrate_pages": 238, "move_pages": 239, "prlimit64": 261, "sched_setattr": 274,
        "kill": 129, "tkill": 130, "tgkill": 131, "rt_sigqueueinfo": 138, "rt_tgsigqueueinfo": 240, "io_setup": 0,
        "epoll_create1": 20, "fcntl": 25, "inotify_init1": 26, "sendfile": 71, "vmsplice": 75, "splice": 76, "tee": 77,
        "timer_create": 107, "setrlimit": 164, "prctl": 167, "mbind": 235, "set_mempolicy": 237, "seccomp": 277,
    }),
}  # fmt: skip
NETWORK = frozenset({"socket", "connect", "bind", "listen", "accept", "accept4"})
ABSENT = frozenset({"clone3", "memfd_create", "memfd_secret", "sendfile", "splice"})
"""Refused as if the kernel did not know them, because who calls them then takes another way: clone(2), whose flags a
filter can see, files, whose memory is counted, and reading and writing."""
OWN = ("sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler")
"""Allowed for the caller itself, as process 0: another of the same user, which may be the worker, it could end so."""
SENDING = {"kill": 1, "tkill": 1, "tgkill": 2, "rt_sigqueueinfo": 1, "rt_tgsigqueueinfo": 2}
"""Which argument the signal is."""
CHECKED = frozenset({"clone", "fcntl", "ioctl", "prctl", "prlimit64", "setrlimit", *OWN, *SENDING})
"""Allowed with some arguments."""
KILLING_LIMITS = (resource.RLIMIT_CPU, 15)
"""Limits beyond which the kernel sends SIGKILL; the other is RLIMIT_RTTIME of asm-generic/resource.h."""
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_FUTEX_HASH = 1, 4, 78
"""linux/prctl.h. What a process uses that may not be looked at, nobody sees; the hash has any size that is asked."""
LOCKS = (6, 7, 37, 38)
"""Of ranges of files, any number for each: F_SETLK, F_SETLKW, F_OFD_SETLK and F_OFD_SETLKW of asm-generic/fcntl.h.
flock(2) locks, of which a descriptor has one, are allowed."""
F_SETSIG, F_SETLEASE, F_NOTIFY = 10, 1024, 1026
"""asm-generic/fcntl.h, linux/fcntl.h"""
TIOCSTI = 0x5412
"""Types into the terminal of whoever started the service. asm-generic/ioctls.h"""


def filter_system_calls(*, network: bool) -> None:
    """Refuse them to this process, and to all that it starts, for good. Wants PR_SET_NO_NEW_PRIVS. Raises OSError."""
    machine = MACHINES.get(platform.machine())
    if machine is None:
        raise OSError(errno.ENOSYS, f"no filter for {platform.machine()}")
    instructions = program(machine, network=network)
    array = (_Filter * len(instructions))(*(_Filter(*instruction) for instruction in instructions))
    whole = _Program(len(instructions), ctypes.cast(array, ctypes.c_void_p))
    checked(libc().prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(whole), 0, 0))


def program(machine: Machine, *, network: bool) -> list[Instruction]:
    """The filter as instructions: (code, skip if true, skip if false, operand)."""
    numbers = machine.numbers
    steps: list[Instruction] = [
        (LOAD, 0, 0, ARCHITECTURE),
        (JUMP_EQUAL, 1, 0, machine.audit),
        (RETURN, 0, 0, RET_KILL_PROCESS),
        (LOAD, 0, 0, NUMBER),
    ]
    if machine is MACHINES["x86_64"]:
        steps += [(JUMP_GREATER_EQUAL, 0, 1, 0x40000000), _refuse(errno.ENOSYS)]  # the x32 calls have other numbers
    for name in sorted(numbers, key=numbers.__getitem__):
        if name in CHECKED or (network and name in NETWORK):
            continue
        steps += [(JUMP_EQUAL, 0, 1, numbers[name]), _refuse(errno.ENOSYS if name in ABSENT else errno.EPERM)]
    for name, block in _checks().items():
        steps += [(JUMP_EQUAL, 0, len(block), numbers[name]), *block]
    return [*steps, _allow()]


def _checks() -> dict[str, list[Instruction]]:
    """What is asked of the arguments of each call that is allowed with some, to its end."""
    denied = errno.EPERM
    own = [_argument(0), (JUMP_EQUAL, 1, 0, 0), _refuse(denied)]
    clone = [
        _argument(0),
        (JUMP_ANY_BIT, 0, 1, CLONE_NEW | CLONE_PARENT),
        _refuse(denied),
        (AND, 0, 0, CLONE_THREAD | CLONE_FILES),
        *_unless([CLONE_THREAD], _refuse(denied)),
        _argument(0),
        (AND, 0, 0, EXIT_SIGNAL),
        *_only([0, signal.SIGCHLD]),
    ]
    fcntl = [
        _argument(1),
        *_unless(LOCKS, _refuse(errno.ENOLCK)),
        *_unless([F_SETSIG, F_SETLEASE, F_NOTIFY], _refuse(denied)),
        _allow(),
    ]
    dumpable, death = [_argument(1), *_only([1])], [_argument(1), *_only([signal.SIGKILL])]
    prctl = [
        _argument(0),
        *_unless([PR_SET_SECCOMP, PR_FUTEX_HASH], _refuse(denied)),
        (JUMP_EQUAL, 0, len(dumpable), PR_SET_DUMPABLE),
        *dumpable,
        (JUMP_EQUAL, 0, len(death), PR_SET_PDEATHSIG),
        *death,
        _allow(),
    ]
    asked = [(LOAD, 0, 0, ARGUMENT + 16), (JUMP_EQUAL, 0, 3, 0), (LOAD, 0, 0, ARGUMENT + 20), (JUMP_EQUAL, 0, 1, 0)]
    limit = _unless(KILLING_LIMITS, _refuse(denied))
    return {
        "clone": clone,
        "fcntl": fcntl,
        "ioctl": [_argument(1), *_unless([TIOCSTI], _refuse(denied)), _allow()],
        "prctl": prctl,
        "prlimit64": [*own, *asked, _allow(), _argument(1), *limit, _allow()],  # who sets nothing asks only
        "setrlimit": [_argument(0), *limit, _allow()],
        **{name: [*own, _allow()] for name in OWN},
        **{
            name: [_argument(number), *_unless([signal.SIGKILL], (RETURN, 0, 0, RET_KILL_PROCESS)), _allow()]
            for name, number in SENDING.items()
        },
    }


def _argument(number: int) -> Instruction:
    """Loads its lower half, which is all that the kernel looks at where it is an int."""
    return (LOAD, 0, 0, ARGUMENT + 8 * number)


def _unless(values: Iterable[int], end: Instruction) -> list[Instruction]:
    """Goes on, unless what is loaded is one of these."""
    return [step for value in values for step in ((JUMP_EQUAL, 0, 1, value), end)]


def _only(values: Iterable[int]) -> list[Instruction]:
    """Ends: allowed where what is loaded is one of these."""
    return [*_unless(values, _allow()), _refuse(errno.EPERM)]


def _refuse(number: int) -> Instruction:
    return (RETURN, 0, 0, RET_ERRNO | number)


def _allow() -> Instruction:
    return (RETURN, 0, 0, RET_ALLOW)


class _Filter(ctypes.Structure):
    """struct sock_filter of linux/filter.h."""

    _fields_ = (("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    """struct sock_fprog of linux/filter.h."""

    _fields_ = (("len", ctypes.c_uint16), ("filter", ctypes.c_void_p))
