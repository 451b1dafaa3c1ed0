"""Runs every attack under a supervisor, as another user or where namespaces are refused, and prints what each reached.

A process of its own, because neither can be taken back: ``python -m tests.hostile.inside USER REFUSED DIRECTORY``.
"""

import asyncio
import ctypes
import errno
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

from app.jobs import syscall_filter
from app.jobs.confinement import PR_SET_NO_NEW_PRIVS, Limits
from app.jobs.messages import Progress, TemplateWanted
from app.jobs.namespaces import CLONE_NEWNS, MS_BIND, MS_REC, MS_SLAVE, mount, unshare
from app.jobs.scratch import scratch_directory
from app.jobs.supervisor import Supervisor, TaskFailed
from app.jobs.syscall_filter import MACHINES, Instruction
from app.processes import checked, libc, prctl
from tests.hostile.attacks import ENDINGS

SECRET = "a-secret-of-the-service"
FILLING = (
    *("fill_disk", "fill_disk_unseen", "fill_disk_far_down", "fill_disk_unnamed"),
    *("claim_disk", "print_without_end"),
)
HOARDING = (
    *("share_memory", "spread_memory", "share_memory_unseen", "share_memory_without_first_thread"),
    *("share_memory_as_a_sibling", "tabulate_memory"),
)
COUNTED = ("hold_descriptors", "map_without_end")
OUTSIDE = ("/tmp", "/var/tmp", "/etc", "/root", "/home", "/dev", "/usr", "/", "/proc/sys/kernel")


async def silent(_: Progress | TemplateWanted) -> None:
    return None


def refuse_namespaces() -> None:
    """As the default profiles of Docker and Kubernetes do: unshare, setns, mounts, and clone with such flags."""
    machine = MACHINES[os.uname().machine]
    names = ("unshare", "setns", "mount", "umount2", "pivot_root", "mount_setattr", "open_tree", "move_mount")
    steps: list[Instruction] = [(syscall_filter.LOAD, 0, 0, syscall_filter.NUMBER)]
    refuse = (syscall_filter.RETURN, 0, 0, syscall_filter.RET_ERRNO | errno.EPERM)
    for name in names:
        steps += [(syscall_filter.JUMP_EQUAL, 0, 1, machine.numbers[name]), refuse]
    steps.append((syscall_filter.RETURN, 0, 0, syscall_filter.RET_ALLOW))
    array = (syscall_filter._Filter * len(steps))(*(syscall_filter._Filter(*step) for step in steps))
    whole = syscall_filter._Program(len(steps), ctypes.cast(array, ctypes.c_void_p))
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    checked(libc().prctl(syscall_filter.PR_SET_SECCOMP, syscall_filter.SECCOMP_MODE_FILTER, ctypes.byref(whole), 0, 0))


def make_passage() -> None:
    """Let another user reach the interpreter, even where it lies in a home directory that is closed to others."""
    wanted = Path(sys.base_prefix).resolve()
    closed = [place for place in reversed(wanted.parents) if not place.stat().st_mode & 0o001]
    if not closed:
        return
    unshare(CLONE_NEWNS)
    mount("none", Path("/"), None, MS_REC | MS_SLAVE)
    kept = os.open(wanted, os.O_PATH)
    mount("tmpfs", closed[0], "tmpfs", 0, "mode=755")
    wanted.mkdir(parents=True)
    mount(f"/proc/self/fd/{kept}", wanted, None, MS_BIND | MS_REC)
    os.close(kept)


def printing_to(log: Path) -> list[str]:
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                if os.readlink(place / "fd" / "1") == str(log):
                    found.append(place.name)
            except OSError:
                continue
    return found


class Attacks:
    """One service: a supervisor, its data directory, and a job's directory for each attack."""

    def __init__(self, directory: Path) -> None:
        self.data = directory / "data"
        self.data.mkdir()
        (self.data / "object.bin").write_bytes(b"another tenant's")
        (self.data / "object.bin").chmod(0o644)
        self.supervisor = Supervisor(("tests.hostile.attacks",), hidden=(self.data,))

    async def reached(self, name: str, arguments: Any = None, work: Path | None = None, **limits: Any) -> Any:
        """What an attack reached, or the code of the problem that it ended with; and what it left alive."""
        work = work or self.data / f"job-{name}"
        work.mkdir(exist_ok=True)
        try:
            found = await self.supervisor.run(
                f"tests.hostile.attacks:{name}",
                str(work / "results") if arguments == "results" else arguments,
                limits=Limits(timeout=20, **limits),
                work_dir=work,
                answer=silent,
            )
        except TaskFailed as error:
            found = error.problem.code + (", as if killed from outside" if error.killed else "")
        left = printing_to(work / "child.log")
        return {"reached": found, "left": left} if left else found

    async def written(self, directories: list[str]) -> list[str]:
        """Directories in which a file lies after the attack, as seen from outside: each job has a /tmp of its own."""
        await self.reached("write_files", directories)
        return [directory for directory in directories if Path(directory, "written").exists()]

    async def kept_descriptors(self) -> list[str]:
        """What the supervisor holds open after it was sent descriptors, beside what it held before."""
        before = len(os.listdir("/proc/self/fd"))
        found = await self.reached("send_descriptors", "/usr")
        return [f"{found}"] if found else ["kept"] * (len(os.listdir("/proc/self/fd")) - before)

    async def endings(self) -> dict[str, Any]:
        """What became of processes that tried to end themselves, each in its way."""
        ways = {way: self.data / f"job-end-{number}" for number, way in enumerate(ENDINGS)}
        found = await asyncio.gather(*(self.reached("end_itself", way, work) for way, work in ways.items()))
        return dict(zip(ways, found, strict=True))

    async def left_over(self) -> list[str]:
        """What is left of a job's directory after it was removed."""
        with scratch_directory(self.data, "job-") as work:
            found = await self.reached("leave_what_cannot_be_removed", "results", work=work)
        return [f"{found}"] if found else [name for name in os.listdir(self.data) if name == work.name]

    async def all(self) -> dict[str, Any]:
        path = str(self.data / "listening")
        with socket.create_server(path, family=socket.AF_UNIX), socket.create_server(("127.0.0.1", 0)) as server:
            sockets = await self.reached("open_sockets", [path, server.getsockname()[1]])
        project = Path(__file__).parents[2]
        files = [
            str(self.data),
            str(self.data / "object.bin"),
            "/etc/shadow",
            str(project / "pyproject.toml"),
        ]
        found = {
            "open_sockets": sockets,
            "read_secrets": await self.reached("read_secrets", SECRET),
            "read_files": await self.reached("read_files", files),
            "write_files": await self.written([*OUTSIDE, str(self.data), str(project / "app")]),
            "own_results": await self.reached("own_results", "results"),
            "reach_others": await self.reached("reach_others"),
            "gain_privileges": await self.reached("gain_privileges"),
            "fork_without_end": await self.reached("fork_without_end"),
            "outlive": await self.reached("outlive", "results"),
            **{name: await self.reached(name, memory=100 << 20) for name in HOARDING},
            **{name: await self.reached(name) for name in COUNTED},
            "hide_in_the_kernel": await self.reached("hide_in_the_kernel"),
            "fill_with_empty_files": await self.reached("fill_with_empty_files"),
            "endings": await self.endings(),
            "spin": await self.reached("spin", processor={"inspect": 1.0}),
            "spin later": await self.reached("spin_later", processor={"inspect": 0.5, "load": 1.0}),
            **{name: await self.reached(name, "results", disk_bytes=50 << 20) for name in FILLING},
            "fill_shared_memory": await self.reached("fill_shared_memory"),
            "steer_others": await self.reached("steer_others"),
            "run_memory": await self.reached("run_memory"),
            "leave_through_descriptors": await self.reached("leave_through_descriptors"),
            "send_descriptors": await self.kept_descriptors(),
            "leave_what_cannot_be_removed": await self.left_over(),
        }
        assert self.supervisor.confined
        missing, in_force = self.supervisor.confined.missing, self.supervisor.confined.in_force
        self.supervisor.close()
        self.supervisor = Supervisor(("tests.hostile.attacks",), hidden=(self.data,), requirement="full")
        found["under the requirement full"] = await self.reached("own_results", "results")
        self.supervisor.close()
        return {**found, "missing": missing, "in_force": in_force}


def become(user: int, *, refused: bool) -> None:
    """Be that user, where it is not root's number, and ``refused``: as on a platform that refuses namespaces."""
    if user:
        make_passage()
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    if refused:
        refuse_namespaces()


def main() -> None:
    user, namespaces, directory, *command = sys.argv[1:]
    become(int(user), refused=namespaces == "refused")
    if command:
        os.chdir(directory)
        os.execv(command[0], command)
    sys.stdout.write("\n" + json.dumps(asyncio.run(Attacks(Path(directory)).all())))


if __name__ == "__main__":
    main()
