"""What an artifact says of itself, read from the file alone by the libraries that its users have."""

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from safetensors import safe_open

from app.architectures.registry import Registry, load_registry
from app.conversion.checkpoint import open_checkpoint
from app.conversion.job import ConversionJob
from app.conversion.pipeline import convert
from app.domain.report import Verdict
from app.targets.openvino.library import openvino
from app.targets.specs import SPECS
from scripts.field_cases import NoTemplates

NAME = "torchvision/squeezenet1_1"
OPTIONS = {"num_classes": 3, "image_size": 64}
CLASSES = ["cat", "dog", "Übrig"]


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


@pytest.fixture(scope="module")
def checkpoint(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = registry.build(NAME, OPTIONS, initialised=True).state_dict()
    path = tmp_path_factory.mktemp("facts") / "w.pth"
    torch.save({"model": state, "classes": CLASSES, "epoch": 3}, path)
    return path


def converted(checkpoint: Path, target: Any, directory: Path, **options: Any) -> Path:
    directory.mkdir()
    job = ConversionJob(
        conversion_id=f"cnv_{directory.name}",
        checkpoint=checkpoint,
        checkpoint_sha256="ab" * 32,
        architecture=NAME,
        architecture_options=OPTIONS,
        options=SPECS[target].options.model_validate(options),
        work_dir=directory,
    )
    outcome = convert(job, lambda *_: None, NoTemplates())
    assert outcome.report.verification.verdict in (Verdict.passed, Verdict.pass_with_notes), outcome.problem
    return directory / outcome.report.artifact.filename


def told_by(path: Path) -> dict[str, str]:
    if path.suffix == ".onnx":
        return {entry.key: entry.value for entry in onnx.load(path, load_external_data=False).metadata_props}
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            return file.metadata()
    if path.suffix == ".xml":
        return json.loads(openvino().Core().read_model(str(path)).get_rt_info("recast").value)
    files = {"recast.json": ""}
    if path.suffix == ".pt2":
        torch.export.load(path, extra_files=files)
    else:
        torch.jit.load(path, _extra_files=files)
    return json.loads(files["recast.json"])


@pytest.mark.parametrize("target", SPECS)
def test_an_artifact_says_what_it_is_and_equal_requests_give_equal_bytes(
    checkpoint: Path, tmp_path: Path, target: str
) -> None:
    embedded = {"acme.licence": "CC-BY-4.0", "threshold": "0.35 ≤ p"}
    first = converted(checkpoint, target, tmp_path / "first", embed=embedded)
    told = told_by(first)
    assert told["recast.architecture"] == NAME
    assert json.loads(told["recast.architecture_options"]) == OPTIONS
    assert told["recast.weights_sha256"] == "ab" * 32
    assert json.loads(told["recast.class_names"]) == CLASSES
    (contract,) = json.loads(told["recast.inputs"])
    assert (contract["name"], contract["dtype"], contract["shape"]) == ("images", "float32", ["batch", 3, 64, 64])
    assert {name: told[name] for name in embedded} == embedded
    assert "cnv_" not in json.dumps(told)
    again = converted(checkpoint, target, tmp_path / "again", embed=embedded)
    assert first.read_bytes() == again.read_bytes()


@pytest.mark.parametrize(
    ("beside", "names"),
    [
        ({"classes": CLASSES}, CLASSES),
        ({"id2label": {0: "cat", 1: "dog"}}, ["cat", "dog"]),
        ({"meta": {"class_to_idx": {"dog": 1, "cat": 0}}}, ["cat", "dog"]),
        ({"classes": 3}, []),
        ({"classes": ["cat", 7]}, []),
        ({"id2label": {0: "cat", 2: "dog"}}, []),
        ({"classes": CLASSES, "meta": {"names": ["other"]}}, []),
    ],
)
def test_class_names_are_read_where_they_are_beyond_doubt(tmp_path: Path, beside: Any, names: list[str]) -> None:
    torch.save({"model": {"w": torch.ones(2)}, **beside}, tmp_path / "w.pth")
    assert list(open_checkpoint(tmp_path / "w.pth").class_names) == names
