"""`recast verify BUNDLE`: the proof that a client can make on its own machine."""

import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import typer

from app.cli.failure import UsageError
from app.delivery.bundle import MANIFEST, is_plain_name
from app.domain.errors import DigestMismatch
from app.targets import selfcheck

BLOCK = 1 << 20
LARGEST_MANIFEST = 1 << 20
LIMIT = 600
"""Seconds for running the artifact."""


def verify_bundle(path: Path) -> int:
    """Check every member against the manifest, then run the bundle's own check; gives the exit status.

    Raises UsageError when it is no bundle, DigestMismatch when a member is not what the manifest says.
    """
    if not zipfile.is_zipfile(path):
        raise UsageError(f"{path} is not a zip archive." if path.exists() else f"There is no file {path}.")
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory(prefix="recast-verify-") as directory:
        members = _manifest(archive)
        (Path(directory) / MANIFEST).write_bytes(archive.read(MANIFEST))
        for member in members:
            _extract(archive, member, Path(directory))
        typer.echo(f"{len(members)} members have the digests of the manifest")
        return _run_check(Path(directory))


def _manifest(archive: zipfile.ZipFile) -> list[dict[str, Any]]:
    try:
        info = archive.getinfo(MANIFEST)
    except KeyError:
        raise UsageError("The archive has no manifest.json: it is not a bundle of Recast.") from None
    if info.file_size > LARGEST_MANIFEST:
        raise UsageError("The manifest is too large to be one.")
    members: list[dict[str, Any]] = json.loads(archive.read(info))["members"]
    listed = {member["name"] for member in members} | {MANIFEST}
    if set(archive.namelist()) != listed:
        raise DigestMismatch(f"Archive and manifest differ: {sorted(set(archive.namelist()) ^ listed)}.", hint=None)
    return members


def _extract(archive: zipfile.ZipFile, member: dict[str, Any], directory: Path) -> None:
    name = member["name"]
    if not is_plain_name(name):
        raise UsageError(f"The member {name!r} is not a plain file name.")
    if archive.getinfo(name).file_size != member["bytes"]:
        raise DigestMismatch(f"{name} has {archive.getinfo(name).file_size} bytes, not {member['bytes']}.", hint=None)
    digest = hashlib.sha256()
    with archive.open(name) as source, (directory / name).open("wb") as target:
        while block := source.read(BLOCK):
            digest.update(block)
            target.write(block)
    if digest.hexdigest() != member["sha256"]:
        raise DigestMismatch(f"{name} is not what the manifest says.", hint="Download the bundle again.")


def _run_check(directory: Path) -> int:
    """The check is Recast's own file, not the bundle's: a bundle from anywhere is data, its script is not run."""
    with tempfile.TemporaryDirectory(prefix="recast-") as apart:
        script = Path(apart) / "check.py"
        script.write_bytes(selfcheck.script())
        command = [sys.executable, "-I", str(script), str(directory)]
        return subprocess.run(command, cwd=directory, check=False, timeout=LIMIT).returncode
