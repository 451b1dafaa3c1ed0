#!/usr/bin/env python3
# ruff: noqa: T201
"""Prove this bundle on your own machine: python check.py

Checks the sha256 of every file against manifest.json, then runs the artifact on the golden inputs and holds every
output against the gate that Recast used. Needs numpy and what runs the artifact: onnxruntime for ONNX, else torch.

Exit code: 0 everything agrees, 1 something does not, 2 the check could not be made.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHUNK = 1 << 20
RUNNERS: dict[str, Callable[[Path, dict[str, Any]], list[Any] | None]] = {}
"""How artifacts are run, by the suffix of their names."""


class CannotCheck(Exception):
    """A file or a library that the check needs is missing."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("bundle", nargs="?", type=Path, default=Path(__file__).resolve().parent, help="unzipped bundle")
    directory = parser.parse_args().bundle
    try:
        wrong = check_files(directory) + check_weights_beside(directory)
        wrong += check_outputs(directory)
    except CannotCheck as reason:
        print(f"CANNOT CHECK  {reason}")
        return 2
    print(f"FAILED: {wrong} of the checks above do not agree" if wrong else "PASSED: files and outputs agree")
    return 1 if wrong else 0


def check_files(directory: Path) -> int:
    """The number of members whose bytes are not those of the manifest."""
    wrong = 0
    for member in _members(directory):
        path = directory / member["name"]
        good = path.is_file() and _sha256(path) == member["sha256"]
        wrong += not good
        state = "ok   " if good else "WRONG"
        print(f"{state} file   {member['name']}  sha256 {member['sha256'][:16]}…")
    return wrong


def check_weights_beside(directory: Path) -> int:
    """1 when the artifact points into an uploaded file, and another one lies beside it. Raises CannotCheck without."""
    roles = {member["role"]: member["name"] for member in _members(directory)}
    if "report" not in roles:
        return 0
    report = json.loads((directory / roles["report"]).read_text(encoding="utf-8"))
    beside = (report.get("export") or {}).get("weights_beside")
    if not beside:
        return 0
    path = directory / beside["filename"]
    if not path.is_file():
        raise CannotCheck(
            f"the artifact has no weights of its own: it points into the uploaded checkpoint, which is missing. Put it "
            f"into {directory} as {beside['filename']} ({beside['bytes']} bytes, sha256 {beside['sha256']})"
        )
    if _sha256(path) == beside["sha256"]:
        print(f"ok    file   {path.name}  the checkpoint into which the artifact points")
        return 0
    print(f"WRONG file   {path.name}  another checkpoint than the one that was converted (sha256 {beside['sha256']})")
    return 1


def check_outputs(directory: Path) -> int:
    """The number of outputs outside their gate, or 1 when the artifact does not give as many as it should."""
    try:
        import numpy
    except ImportError as missing:
        raise CannotCheck("numpy is not installed: pip install numpy") from missing

    artifact = directory / _member(directory, "artifact")
    with numpy.load(directory / _member(directory, "golden"), allow_pickle=False) as golden:
        stored = {key: golden[key] for key in golden.files}
    inputs = {key.removeprefix("input/"): value for key, value in stored.items() if key.startswith("input/")}
    expected = {key.removeprefix("output/"): value for key, value in stored.items() if key.startswith("output/")}
    if artifact.suffix not in RUNNERS:
        raise CannotCheck(f"this script does not know how a file {artifact.suffix} is run")
    try:
        outputs = RUNNERS[artifact.suffix](artifact, inputs)
    except ImportError as missing:
        raise CannotCheck(f"{missing.name} is not installed: pip install {missing.name}") from missing
    except Exception as refusal:  # noqa: BLE001 - runtimes raise classes of their own
        print(f"WRONG output the artifact does not run: {refusal}")
        return 1
    if outputs is None:
        print("----- output  the artifact holds weights and computes nothing")
        return 0
    if len(outputs) != len(expected):
        print(f"WRONG output {len(outputs)} outputs, {len(expected)} expected")
        return 1
    return sum(
        not _agrees(name, got, want, float(stored[f"gate/{name}"]))
        for (name, want), got in zip(expected.items(), outputs, strict=True)
    )


# The runners of all targets stand here.


def _agrees(name: str, got: Any, want: Any, gate: float) -> bool:
    import numpy

    if got.shape != want.shape:
        print(f"WRONG output {name}: shape {got.shape}, {want.shape} expected")
        return False
    wide = numpy.complex128 if numpy.iscomplexobj(want) else numpy.float64
    error = float(numpy.abs(got.astype(wide) - want.astype(wide)).max()) if got.size else 0.0
    good = error <= gate  # false for nan
    print(f"{'ok   ' if good else 'WRONG'} output {name}: error {error:.3g}, at most {gate:.3g} allowed")
    return good


def _members(directory: Path) -> list[dict[str, Any]]:
    path = directory / "manifest.json"
    if not path.is_file():
        raise CannotCheck(f"there is no manifest.json in {directory}: run this in the unzipped bundle")
    members: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["members"]
    return members


def _member(directory: Path, role: str) -> str:
    for member in _members(directory):
        if member["role"] == role:
            return str(member["name"])
    raise CannotCheck(f"the bundle has no {role}: without it nothing can be run")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
