"""`recast verify BUNDLE`: the proof that a client can make on its own machine."""

import base64
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
from app.delivery.statement import SUBJECTS, NotSigned, opened
from app.domain.errors import DigestMismatch
from app.domain.produced_files import STATEMENT
from app.targets import selfcheck

BLOCK = 1 << 20
LARGEST_MANIFEST = 1 << 20
LIMIT = 600
"""Seconds for running the artifact."""


def verify_bundle(path: Path, key: Path | None = None) -> int:
    """Check every member against the manifest, then run the bundle's own check; gives the exit status.

    ``key``: what /.well-known/recast-key answered, kept; one of its keys must have signed the statement. Raises
    UsageError when it is no bundle, DigestMismatch when a member or the statement is not what it should be.
    """
    if not zipfile.is_zipfile(path):
        raise UsageError(f"{path} is not a zip archive." if path.exists() else f"There is no file {path}.")
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory(prefix="recast-verify-") as directory:
        members = _manifest(archive)
        (Path(directory) / MANIFEST).write_bytes(archive.read(MANIFEST))
        for member in members:
            _extract(archive, member, Path(directory))
        typer.echo(f"{len(members)} members have the digests of the manifest")
        if key is not None:
            typer.echo(_signed(Path(directory), members, key))
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


def _signed(directory: Path, members: list[dict[str, Any]], key: Path) -> str:
    """Who signed the statement, and what it says, in a line."""
    try:
        keys = [base64.b64decode(each["public"]) for each in json.loads(key.read_bytes())["keys"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{key} is not what /.well-known/recast-key answers: {error}") from error
    try:
        statement = opened((directory / STATEMENT).read_bytes(), keys)
    except (OSError, NotSigned) as error:
        raise DigestMismatch(f"The statement cannot be trusted: {error}", hint=None) from error
    told = {subject["digest"]["sha256"] for subject in statement["subject"]}
    if not {member["sha256"] for member in members if member["role"] in SUBJECTS} <= told:
        raise DigestMismatch("The statement is about other files than the bundle's.", hint=None)
    predicate = statement["predicate"]
    return f"the statement is signed: {predicate['architecture']} to {predicate['target']}, {predicate['verdict']}"


def _run_check(directory: Path) -> int:
    """The check is Recast's own file, not the bundle's: a bundle from anywhere is data, its script is not run."""
    with tempfile.TemporaryDirectory(prefix="recast-") as apart:
        script = Path(apart) / "check.py"
        script.write_bytes(selfcheck.script())
        command = [sys.executable, "-I", str(script), str(directory)]
        return subprocess.run(command, cwd=directory, stdout=sys.stdout, check=False, timeout=LIMIT).returncode
