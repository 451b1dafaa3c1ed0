"""Processors are counted as the kernel gives them out: by affinity and by the control groups' quota."""

import os
from pathlib import Path

import pytest

from app import processors
from app.processors import available_cores, bound_spinning, cpu_quota


def written(root: Path, files: dict[str, str], membership: str) -> float | None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    (root / "membership").write_text(membership)
    return cpu_quota(root / "membership", root)


@pytest.mark.parametrize(
    ("files", "membership", "quota"),
    [
        ({"app/cpu.max": "150000 100000"}, "0::/app\n", 1.5),
        ({"app/cpu.max": "max 100000"}, "0::/app\n", None),
        ({"cpu.max": "200000 100000"}, "0::/gone/deeper\n", 2.0),
        ({"a/cpu.max": "100000 100000", "a/b/cpu.max": "400000 100000"}, "0::/a/b\n", 1.0),
        (
            {"cpu,cpuacct/x/cpu.cfs_quota_us": "50000", "cpu,cpuacct/x/cpu.cfs_period_us": "100000"},
            "4:memory:/x\n3:cpu,cpuacct:/x\n",
            0.5,
        ),
        ({"cpu/x/cpu.cfs_quota_us": "-1", "cpu/x/cpu.cfs_period_us": "100000"}, "3:cpu,cpuacct:/x\n", None),
        ({"cpuset/x/cpu.cfs_quota_us": "1", "cpuset/x/cpu.cfs_period_us": "100"}, "3:cpuset:/x\n", None),
        ({}, "", None),
    ],
)
def test_the_quota_is_the_least_of_the_group_and_those_around_it(
    files: dict[str, str], membership: str, quota: float | None, tmp_path: Path
) -> None:
    assert written(tmp_path, files, membership) == quota


@pytest.mark.parametrize(("quota", "cores"), [(None, 8), (0.2, 1), (1.5, 2), (4.0, 4), (64.0, 8)])
def test_cores_are_no_more_than_the_quota_rounded_up(
    quota: float | None, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(processors, "cpu_quota", lambda: quota)
    assert available_cores() == cores


def test_spinning_is_bounded_unless_the_environment_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    bound_spinning()
    assert os.environ["GOMP_SPINCOUNT"] == "30000"
    monkeypatch.setenv("GOMP_SPINCOUNT", "0")
    bound_spinning()
    assert os.environ["GOMP_SPINCOUNT"] == "0"
