"""What a tree of processes uses of the machine: its own memory, shared memory included, and its files."""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

MOST_FILES = 20_000
"""Files beyond which a directory counts as full, whatever lies in them."""


def memory_of(pids: Sequence[int], inherited: int, limit: int) -> int:
    """Bytes that these processes hold beside what each shares with the forkserver.

    The sum of what each has is found quickly, but counts what they share among them more than once; only where that is
    beyond ``limit`` each page is looked at (/proc/pid/smaps_rollup), which takes milliseconds.
    """
    quick = sum(max(0, private_memory(pid) - inherited) for pid in pids)
    if quick <= limit:
        return quick
    return max(0, sum(_share(pid) for pid in pids) - inherited)


def private_memory(pid: int) -> int:
    """Bytes of memory of a process that no file backs: its own, copied on write, and shared."""
    return _sum(Path(f"/proc/{pid}/status"), ("RssAnon:", "RssShmem:"))


def _share(pid: int) -> int:
    """The same with each page divided by how many processes have it."""
    return _sum(Path(f"/proc/{pid}/smaps_rollup"), ("Pss_Anon:", "Pss_Shmem:"))


def _sum(path: Path, names: tuple[str, ...]) -> int:
    try:
        lines = path.read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(names))


def processor_time(pids: Iterable[int]) -> float:
    """Seconds of processor time that these processes took, and those that ended and that they waited for (proc(5))."""
    ticks = 0
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, after_name[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def process_tree(roots: Iterable[int]) -> Iterator[int]:
    """These processes and all that come from them."""
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        yield pid
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                waiting += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue


def disk_usage(places: Iterable[Path], pids: Iterable[int], limit: int) -> int:
    """Bytes of these files, and of those under these directories, and of those without a name that the processes hold.

    Each counts as what it takes or, where that is more, as what it says to have: that is read when it is taken over.
    Beyond ``limit`` where there are too many to count, or some that cannot be looked at.
    """
    total = files = 0
    waiting = [os.fspath(place) for place in places]
    while waiting:
        try:
            place = waiting.pop()
            found = os.stat(place, follow_symlinks=False)
            total += _size(found)
            if not stat.S_ISDIR(found.st_mode):
                continue
            with os.scandir(place) as entries:
                for entry in entries:
                    files += 1
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        total += _size(entry.stat(follow_symlinks=False))
        except (FileNotFoundError, NotADirectoryError):  # it changed meanwhile
            continue
        except OSError:
            return limit + 1
        if files > MOST_FILES:
            return limit + 1
    return total + _unnamed(pids)


def _unnamed(pids: Iterable[int]) -> int:
    """Bytes of the files that processes have open and that lie in no directory any more."""
    sizes: dict[tuple[int, int], int] = {}
    for pid in pids:
        with suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    found = os.stat(f"/proc/{pid}/fd/{name}")
                    if stat.S_ISREG(found.st_mode) and not found.st_nlink:
                        sizes[found.st_dev, found.st_ino] = _size(found)
    return sum(sizes.values())


def _size(found: os.stat_result) -> int:
    return max(found.st_size, found.st_blocks * 512) if stat.S_ISREG(found.st_mode) else found.st_blocks * 512
