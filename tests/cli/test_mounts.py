"""A data directory whose disk is not mounted is not taken for a new one."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from app.cli.failure import UsageError
from app.cli.mounts import refuse_unmounted, remember_mount


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "recast" / "mounts.json"


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A data directory on a file system of its own, which is taken away by taking its link away."""
    with TemporaryDirectory(dir="/dev/shm") as other:
        (tmp_path / "data").symlink_to(other)
        (tmp_path / "data" / "postgres").mkdir()
        yield tmp_path / "data"


def test_what_is_mounted_is_used_and_what_is_not_is_named(mounted: Path, memory: Path) -> None:
    refuse_unmounted(mounted)
    remember_mount(mounted)
    refuse_unmounted(mounted)
    mounted.unlink()
    for made in (False, True):
        if made:
            mounted.mkdir()
        with pytest.raises(UsageError, match="/dev/shm, which is not mounted"):
            refuse_unmounted(mounted)
    memory.unlink()
    refuse_unmounted(mounted)


def test_what_was_emptied_or_moved_here_by_hand_is_used(mounted: Path) -> None:
    remember_mount(mounted)
    (mounted / "postgres").rmdir()
    refuse_unmounted(mounted)
    mounted.unlink()
    (mounted / "postgres").mkdir(parents=True)
    refuse_unmounted(mounted)


def test_a_home_that_cannot_be_written_hinders_nothing(mounted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/dev/null")
    remember_mount(mounted)
    refuse_unmounted(mounted)
