"""What a tree of processes uses of the machine: its own memory, what the kernel keeps for it, and its files."""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

MOST_FILES = 20_000
"""Files beyond which a directory counts as full, whatever lies in them."""
MOST_MAPPINGS = 1 << 18
"""Four times what Linux lets one process have where nothing else is set (vm.max_map_count): some 80 MB in all."""

_SHARED_WITH_NOBODY = ("VmPTE", "HugetlbPages")


def memory_of(pids: Sequence[int], inherited: int, limit: int) -> int:
    """Bytes that these processes hold beside what each shares with the forkserver.

    The sum of what each has is found quickly, but counts what they share among them more than once; only where that is
    beyond ``limit`` each page is looked at (/proc/pid/smaps_rollup), which takes milliseconds.
    """
    quick = sum(max(0, private_memory(pid) - inherited) for pid in pids)
    if quick <= limit:
        return quick
    try:
        return max(0, sum(_share(pid) for pid in pids) - inherited)
    except PermissionError:  # one that may not be looked at so closely
        return quick


def private_memory(pid: int) -> int:
    """Bytes of memory of a process that no file backs: its own, copied on write, and shared, wherever it lies now; and
    the tables in which the kernel keeps where it lies."""
    figures = _figures(pid, "status")
    return sum(figures.get(name, 0) for name in ("RssAnon", "RssShmem", *_SHARED_WITH_NOBODY, "VmSwap"))


def _share(pid: int) -> int:
    """The same with each page divided by how many processes have it. Raises PermissionError."""
    pages, tables = _figures(pid, "smaps_rollup"), _figures(pid, "status")
    shares = sum(pages.get(name, 0) for name in ("Pss_Anon", "Pss_Shmem", "SwapPss"))
    return shares + sum(tables.get(name, 0) for name in _SHARED_WITH_NOBODY)


def _figures(pid: int, name: str) -> dict[str, int]:
    """What a file of /proc says of a process's memory, in bytes. Raises PermissionError.

    Of a thread that has ended it says nothing, even of the first one, whose memory all others go on having.
    """
    for thread in _threads(pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            lines = Path(f"/proc/{thread}/{name}").read_text().splitlines()
            figures = {
                words[0].rstrip(":"): int(words[1]) << 10 for words in map(str.split, lines) if words[2:] == ["kB"]
            }
            if figures:
                return figures
    return {}


def _threads(pid: int) -> Iterator[int]:
    """The first thread of a process, and then the others."""
    yield pid
    with suppress(FileNotFoundError, ProcessLookupError):
        yield from (int(name) for name in os.listdir(f"/proc/{pid}/task") if int(name) != pid)


def thread_count(pids: Iterable[int]) -> int:
    """Threads of all these processes."""
    count = 0
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            count += len(os.listdir(f"/proc/{pid}/task"))
    return count


def descriptor_count(pids: Iterable[int]) -> int:
    """Descriptors that all these processes have: behind each the kernel may keep some pages, as in a pipe."""
    return sum(len(_descriptors(pid)) for pid in pids)


def mapping_count(pids: Sequence[int]) -> int:
    """Mappings of all these processes, of each of which the kernel keeps a few hundred bytes.

    As many as they may have where that is not beyond ``MOST_MAPPINGS``, because reading them takes microseconds for
    each; and none is counted beyond that.
    """
    count = len(pids) * int(Path("/proc/sys/vm/max_map_count").read_text())
    if count <= MOST_MAPPINGS:
        return count
    count = 0
    for pid in pids:
        for thread in _threads(pid):
            found = 0
            with suppress(OSError), open(f"/proc/{thread}/maps", "rb") as maps:
                for _ in maps:
                    found += 1
                    if count + found > MOST_MAPPINGS:
                        return count + found
            count += found
            if found:
                break
    return count


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
        for path in _descriptors(pid):
            with suppress(OSError):
                found = os.stat(path)
                if stat.S_ISREG(found.st_mode) and not found.st_nlink:
                    sizes[found.st_dev, found.st_ino] = _size(found)
    return sum(sizes.values())


def _descriptors(pid: int) -> list[str]:
    """Paths of what a process has open, whose threads share it; the first of them may have ended."""
    for thread in _threads(pid):
        with suppress(OSError):
            names = os.listdir(f"/proc/{thread}/fd")
            if names:
                return [f"/proc/{thread}/fd/{name}" for name in names]
    return []


def _size(found: os.stat_result) -> int:
    return max(found.st_size, found.st_blocks * 512) if stat.S_ISREG(found.st_mode) else found.st_blocks * 512
