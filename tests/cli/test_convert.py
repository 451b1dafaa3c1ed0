"""`recast convert`, in process and on a server, and the proof of what it wrote."""

import json
import zipfile
from pathlib import Path

import pytest
import torch

from app.architectures.registry import load_registry
from app.domain.report import ConversionReport
from tests.cli.running import PLUGINS, recast

pytestmark = pytest.mark.slow

ARCHITECTURE = "sample/branching"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    module = load_registry(PLUGINS).build(ARCHITECTURE, {}, initialised=True)
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save({"epoch": 1, "model": module.state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def converted(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with everything that one order can give."""
    directory = tmp_path_factory.mktemp("converted")
    outputs = ("-o", directory / "model.pt", "--report", directory / "report.html", "--bundle", directory / "b.zip")
    order = ("convert", weights, "-a", ARCHITECTURE, "-t", "torchscript", *outputs)
    told = recast(*order, cache=directory / "cache")
    assert told.returncode in (0, 3), told.stderr
    (directory / "said").write_text(told.stdout)
    return directory


def test_the_artifact_runs_and_the_verdict_is_told(converted):
    module = torch.jit.load(converted / "model.pt")
    assert module(torch.zeros(3, 8)).shape == (3, 4)
    said = (converted / "said").read_text()
    assert "worst error" in said
    assert str(converted / "model.pt") in said


def test_report_and_bundle_come_with_it(converted):
    assert (converted / "report.html").read_text().startswith("<!doctype html>")
    with zipfile.ZipFile(converted / "b.zip") as bundle:
        assert bundle.testzip() is None
        report = ConversionReport.model_validate_json(bundle.read("report.json"))
        assert bundle.read(report.artifact.filename) == (converted / "model.pt").read_bytes()


def test_a_bundle_proves_itself_and_a_changed_one_does_not(converted, tmp_path):
    proof = recast("verify", converted / "b.zip")
    assert proof.returncode == 0, proof.stdout + proof.stderr
    changed = tmp_path / "changed.zip"
    with zipfile.ZipFile(converted / "b.zip") as original, zipfile.ZipFile(changed, "w") as other:
        for name in original.namelist():
            content = bytearray(original.read(name))
            if name.endswith(".pt"):
                content[len(content) // 2] ^= 1
            other.writestr(name, bytes(content))
    refused = recast("verify", changed)
    assert refused.returncode == 1
    assert "not what the manifest says" in refused.stderr


def test_a_bundle_cannot_write_outside_its_directory(tmp_path):
    hostile = tmp_path / "hostile.zip"
    member = {"name": "../escaped", "role": "artifact", "sha256": "0" * 64, "bytes": 1, "media_type": "x"}
    with zipfile.ZipFile(hostile, "w") as archive:
        archive.writestr("../escaped", b"x")
        archive.writestr("manifest.json", json.dumps({"members": [member]}))
    refused = recast("verify", hostile)
    assert refused.returncode == 2
    assert "plain file name" in refused.stderr


def test_the_template_is_kept_for_the_next_conversion(converted):
    listed = recast("templates", "list", cache=converted / "cache")
    assert listed.returncode == 0, listed.stderr
    assert len(listed.stdout.strip().splitlines()) == 2
    cleared = recast("templates", "clear", cache=converted / "cache")
    assert cleared.stdout.strip() == "1 templates removed"


def test_weights_that_do_not_fit_are_explained(weights, tmp_path):
    other = "sample/tagger"
    told = recast("convert", weights, "-a", other, "-o", tmp_path / "out.onnx", cache=tmp_path / "cache")
    assert told.returncode == 1
    assert "key_mismatch" in told.stderr
    assert "missing keys" in told.stderr
    assert "Traceback" not in told.stderr
    assert not (tmp_path / "out.onnx").exists()


def test_keys_that_the_checkpoint_may_lack_are_named_one_by_one(weights, tmp_path):
    state = torch.load(weights)["model"]
    lacking = [key for key in state if key.endswith(".bias")]
    torch.save({key: value for key, value in state.items() if key not in lacking}, tmp_path / "lacking.pth")
    order = ("convert", tmp_path / "lacking.pth", "-a", ARCHITECTURE, "-t", "torchscript", "-o", tmp_path / "m.pt")
    assert len(lacking) > 1
    assert recast(*order, "--allow-missing", lacking[0]).returncode == 1
    named = (flag for key in lacking for flag in ("--allow-missing", key))
    told = recast(*order, *named, "--report", tmp_path / "report.json")
    assert told.returncode in (0, 3), told.stderr
    report = ConversionReport.model_validate_json((tmp_path / "report.json").read_bytes())
    assert set(report.load.missing_keys) == set(lacking)
    assert report.load.unloaded_keys == ()


def test_an_architecture_is_described():
    described = json.loads(recast("architectures", ARCHITECTURE).stdout)
    assert described["signature"]["inputs"][0]["name"] == "features"


def test_templates_can_be_built_before_there_are_weights(tmp_path):
    warmed = recast("templates", "warm", "sample/tied", "-t", "torchscript", cache=tmp_path)
    assert warmed.returncode == 0, warmed.stderr
    listed = recast("templates", "list", cache=tmp_path)
    assert "pass" in listed.stdout
