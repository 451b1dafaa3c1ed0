"""`recast doctor`: whether this machine can run Recast, found out by doing it."""

import asyncio
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.text import Text

from app.cli.processes import migrated_database
from app.settings import Settings

LEAST_FREE = 5 << 30
"""Bytes of free disk below which the doctor warns: a large checkpoint, its artifact and the database's log."""
MATMUL = "import torch; torch.set_num_threads(1); assert (torch.eye(3) @ torch.ones(3, 1)).sum() == 3"
RUNTIME = "import onnxruntime; assert 'CPUExecutionProvider' in onnxruntime.get_available_providers()"


@dataclass(frozen=True)
class Finding:
    """``severity``: ok, warning (it runs, with less), or fault (it does not run)."""

    severity: str
    detail: str


def examine(settings: Settings) -> int:
    """Print one line for each part; 0 when nothing is at fault."""
    console = Console(highlight=False)
    styles = {"ok": "green", "warning": "yellow", "fault": "red"}
    faults = 0
    checks: dict[str, Callable[[], Finding]] = {
        "python": _python,
        "torch": lambda: _in_child("torch", MATMUL),
        "onnxruntime": lambda: _in_child("onnxruntime", RUNTIME),
        "disk": lambda: _disk(settings.data_dir),
        "database": lambda: _database(settings),
        "store": lambda: _store(settings),
        "confinement": lambda: _confinement(settings),
        "address": lambda: _address(settings),
    }
    for name, check in checks.items():
        finding = check()
        faults += finding.severity == "fault"
        line = Text(f"{finding.severity:8}", style=styles[finding.severity]).append(
            f"{name:13}{finding.detail}", "default"
        )
        console.print(line)
    return 1 if faults else 0


def _python() -> Finding:
    told = f"{platform.python_version()} on {platform.platform()}"
    return Finding("ok" if (3, 11) <= sys.version_info < (3, 14) else "fault", told)


def _in_child(package: str, program: str) -> Finding:
    """In a process of its own: a broken native library must not take the doctor along."""
    run = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False, timeout=120
    )
    if run.returncode == 0:
        return Finding("ok", version(package))
    return Finding("fault", (run.stderr.strip().splitlines() or [f"ended with {run.returncode}"])[-1])


def _disk(data_dir: Path) -> Finding:
    existing = next(place for place in (data_dir.absolute(), *data_dir.absolute().parents) if place.exists())
    free = shutil.disk_usage(existing).free
    told = f"{free / 1e9:.1f} GB free at {existing}"
    if not os.access(existing, os.W_OK):
        return Finding("fault", f"{existing} cannot be written")
    return Finding("ok" if free >= LEAST_FREE else "warning", told)


def _database(settings: Settings) -> Finding:
    from app.database.session import Database

    async def ping(url: str) -> None:
        database = Database(url)
        try:
            await database.ping()
        finally:
            await database.close()

    kind = "embedded PostgreSQL" if settings.database_url is None else "external PostgreSQL"
    try:
        with migrated_database(settings, by_others=True) as url:  # it may be a worker's machine
            asyncio.run(ping(url))
    except Exception as error:  # noqa: BLE001 - whatever goes wrong is what the doctor is asked for
        return Finding("fault", f"{kind}: {str(error).splitlines()[0]}")
    return Finding("ok", f"{kind} answers, schema up to date")


def _store(settings: Settings) -> Finding:
    from app.cli.store import check_store

    try:
        check_store(settings)
    except Exception as error:  # noqa: BLE001 - as above
        return Finding("fault", f"{settings.objects_location}: {str(error).splitlines()[0]}")
    return Finding("ok", f"{settings.objects_location} can be written and read")


def _confinement(settings: Settings) -> Finding:
    """Of a conversion process of the kind that a worker makes."""
    from app.jobs.supervisor import TaskFailed, confinement_here

    try:
        confined = asyncio.run(confinement_here())
    except TaskFailed as error:
        return Finding("fault", error.problem.detail)
    if not confined.missing:
        return Finding("ok", "every layer is in force")
    refused = "; ".join(f"{layer}: {reason}" for layer, reason in confined.missing.items())
    if confined.suffices(settings.require_sandbox):
        return Finding("warning", f"not permitted here: {refused}")
    return Finding("fault", f"RECAST_REQUIRE_SANDBOX={settings.require_sandbox}, and not permitted here: {refused}")


def _address(settings: Settings) -> Finding:
    told = f"{settings.host}:{settings.port}"
    if settings.on_loopback:
        return Finding("ok", f"{told}, this machine only")
    if settings.allow_unauthenticated:
        return Finding("warning", f"{told} can be reached from other machines without authentication")
    return Finding("fault", f"{told} can be reached from other machines: RECAST_ALLOW_UNAUTHENTICATED is not set")
