"""The bundle's own check, run as a client runs it: in the unzipped directory, without Recast."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.conversion.verification.verify import examine
from app.targets import selfcheck
from tests.conversion.verification.subjects import (
    FEATURES,
    IMAGES,
    Convolutional,
    Perceptron,
    onnx_subject,
    torchscript_subject,
)


@pytest.fixture(params=["onnx", "torchscript"])
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An unzipped bundle: artifact, golden set, check and manifest."""
    work, directory = tmp_path / "work", tmp_path / "bundle"
    work.mkdir()
    directory.mkdir()
    if request.param == "onnx":
        made = onnx_subject(Perceptron(), FEATURES, work)
    else:
        made = torchscript_subject(Convolutional(), IMAGES, work)
    golden = examine(made).golden
    assert golden is not None
    shutil.copy(made.artifact, directory)
    (directory / "golden.npz").write_bytes(golden)
    (directory / "check.py").write_bytes(selfcheck.script())
    roles = {made.artifact.name: "artifact", "golden.npz": "golden", "check.py": "selfcheck"}
    write_manifest(directory, roles)
    return directory


def write_manifest(directory: Path, roles: dict[str, str]) -> None:
    members = [
        {"name": name, "role": role, "sha256": hashlib.sha256((directory / name).read_bytes()).hexdigest()}
        for name, role in roles.items()
    ]
    (directory / "manifest.json").write_text(json.dumps({"members": members}))


def check(directory: Path) -> subprocess.CompletedProcess[str]:
    # -I: neither the working directory nor an environment variable brings Recast's package in.
    return subprocess.run(
        [sys.executable, "-I", "check.py"], cwd=directory, capture_output=True, text=True, timeout=120, check=False
    )


def test_an_untouched_bundle_passes(bundle: Path) -> None:
    result = check(bundle)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.endswith("PASSED: files and outputs agree\n")


def test_a_changed_byte_is_found(bundle: Path) -> None:
    artifact = next(path for path in bundle.iterdir() if path.suffix in (".onnx", ".pt"))
    content = bytearray(artifact.read_bytes())
    content[len(content) // 2] ^= 1
    artifact.write_bytes(content)
    result = check(bundle)
    assert result.returncode == 1
    assert f"WRONG file   {artifact.name}" in result.stdout


def test_another_artifact_is_found_by_its_outputs(bundle: Path, tmp_path: Path) -> None:
    artifact = next(path for path in bundle.iterdir() if path.suffix in (".onnx", ".pt"))
    if artifact.suffix == ".onnx":
        other = onnx_subject(Perceptron(seed=5), FEATURES, tmp_path)
    else:
        module = Convolutional()
        module.head.bias.data += 1
        other = torchscript_subject(module, IMAGES, tmp_path)
    shutil.copy(other.artifact, artifact)
    write_manifest(bundle, {artifact.name: "artifact", "golden.npz": "golden", "check.py": "selfcheck"})
    result = check(bundle)
    assert result.returncode == 1
    assert "WRONG output y: error" in result.stdout


def test_a_missing_manifest_is_said_in_words(bundle: Path) -> None:
    (bundle / "manifest.json").unlink()
    result = check(bundle)
    assert result.returncode == 2
    assert "no manifest.json" in result.stdout
