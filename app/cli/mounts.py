"""On which file system a data directory lay, so that one whose disk is not mounted is not taken for a new one.

An empty directory looks the same on the first day and on the day on which its disk was not mounted. What tells the two
apart cannot lie in the directory; it is kept with the user's state (XDG Base Directory Specification).
"""

import json
import os
from contextlib import suppress
from pathlib import Path

from app.cli.failure import UsageError


def refuse_unmounted(data_dir: Path) -> None:
    """Raises UsageError where a data directory holds no database, and did on a file system that is not mounted now."""
    mount = _known().get(str(data_dir.absolute()))
    if mount is None or (data_dir / "postgres").exists() or _mount_of(data_dir) == Path(mount):
        return
    raise UsageError(
        f"The data directory {data_dir} lay on the file system at {mount}, which is not mounted now.",
        hint=f"Mount it. To begin anew in its place, delete {_memory()}.",
    )


def remember_mount(data_dir: Path) -> None:
    """Remember on which file system the directory lies; for nothing on the root file system, which is always there."""
    known, mount = _known(), _mount_of(data_dir)
    entry = {str(data_dir.absolute()): str(mount)} if mount != Path("/") else {}
    now = {path: at for path, at in known.items() if path != str(data_dir.absolute())} | entry
    if now == known:
        return
    with suppress(OSError):  # no home, or none to write in: then nothing is remembered
        _memory().parent.mkdir(parents=True, exist_ok=True)
        written = _memory().with_suffix(f".{os.getpid()}")
        written.write_text(json.dumps(now, indent=1))
        written.replace(_memory())


def _memory() -> Path:
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(home) / "recast" / "mounts.json"


def _known() -> dict[str, str]:
    with suppress(OSError, ValueError):
        known: dict[str, str] = json.loads(_memory().read_text())
        return known
    return {}


def _mount_of(data_dir: Path) -> Path:
    place = data_dir.resolve()
    return next(path for path in (place, *place.parents) if os.path.ismount(path))
