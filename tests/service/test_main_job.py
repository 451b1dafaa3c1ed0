"""The main job over HTTP: trained weights in, a verified file out, against a real `recast serve`."""

import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torchvision
from safetensors.torch import save as save_safetensors
from torch import nn

from tests.service.requests import artifact, convert, saved, succeeded

ARCHITECTURE = "torchvision/squeezenet1_1"


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return torchvision.models.squeezenet1_1(weights=None).eval()


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    return network(seed=1)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(3, 3, 224, 224, generator=torch.Generator().manual_seed(0))


def run_onnx(content: bytes, images: torch.Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    outputs: list[np.ndarray] = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    return outputs[0]


def test_a_training_checkpoint_becomes_an_onnx_file_that_computes_the_same(client, trained, images):
    checkpoint = saved({"epoch": 3, "model": trained.state_dict(), "optim": {"state": {}}, "loss": 0.1})
    conversion = succeeded(convert(client, checkpoint, ARCHITECTURE, "onnx", options='{"opset":18}'))
    assert conversion["verdict"] in ("pass", "pass_with_notes")
    content = artifact(client, conversion)
    assert hashlib.sha256(content).hexdigest() == conversion["artifact"]["sha256"]
    with torch.inference_mode():
        np.testing.assert_allclose(run_onnx(content, images), trained(images).numpy(), rtol=1e-4, atol=1e-5)


def test_the_same_weights_become_a_torchscript_file_that_runs_without_the_code(client, trained, images):
    conversion = succeeded(convert(client, saved(trained.state_dict()), ARCHITECTURE, "torchscript"))
    assert conversion["verdict"] in ("pass", "pass_with_notes")
    module = torch.jit.load(io.BytesIO(artifact(client, conversion)))
    with torch.inference_mode():
        torch.testing.assert_close(module(images), trained(images))
    assert module.state_dict().keys() == trained.state_dict().keys()


def test_other_weights_fill_the_template_of_the_first_conversion(client, trained, images):
    succeeded(convert(client, saved(trained.state_dict()), ARCHITECTURE, "onnx"))
    other = network(seed=2)
    conversion = succeeded(convert(client, saved(other.state_dict()), ARCHITECTURE, "onnx"))
    report = client.get(f"/v1/conversions/{conversion['id']}/report").json()
    assert report["export"]["template"]["state"] == "reused"
    assert report["export"]["template"]["certificate"]["verdict"] in ("pass", "pass_with_notes")
    with torch.inference_mode():
        expected = other(images).numpy()
    np.testing.assert_allclose(run_onnx(artifact(client, conversion), images), expected, rtol=1e-4, atol=1e-5)


def test_the_same_weights_in_other_wrappings_give_the_same_tensors(client, trained):
    state = trained.state_dict()
    wrapped = {f"module.{key}": value for key, value in state.items()}
    contents = (saved(state), saved(wrapped), save_safetensors(dict(state)))
    conversions = [succeeded(convert(client, content, ARCHITECTURE, "onnx")) for content in contents]
    artifacts = [client.get(conversion["links"]["artifact"]).content for conversion in conversions]
    graphs = {onnx.load_from_string(artifact).graph.SerializeToString(deterministic=True) for artifact in artifacts}
    assert len(graphs) == 1
    assert len(set(artifacts)) == len(contents)  # each names the file that its weights came in


def test_a_repeated_request_returns_the_finished_conversion(client, trained):
    content = saved(trained.state_dict())
    first = convert(client, content, ARCHITECTURE, "onnx")
    again = convert(client, content, ARCHITECTURE, "onnx")
    assert again.status_code == 200
    assert again.json()["id"] == first.json()["id"]
    forced = convert(client, content, ARCHITECTURE, "onnx", force="true")
    assert succeeded(forced)["id"] != first.json()["id"]


def test_the_bundle_proves_itself_with_numpy_and_onnxruntime_alone(client, trained, tmp_path: Path):
    conversion = succeeded(convert(client, saved(trained.state_dict()), ARCHITECTURE, "onnx"))
    bundle = client.get(f"/v1/conversions/{conversion['id']}/bundle")
    zipfile.ZipFile(io.BytesIO(bundle.content)).extractall(tmp_path)
    command = [sys.executable, "-I", "check.py"]
    proof = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert proof.returncode == 0, proof.stdout + proof.stderr
    model = next(tmp_path.glob("*.onnx"))
    broken = bytearray(model.read_bytes())
    broken[len(broken) // 2] ^= 0xFF
    model.write_bytes(broken)
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (saved(nn.Linear(2, 2)), "pickled_module"),
        (saved({"fc.weight": torch.zeros(2, 2)}), "key_mismatch"),
        (b"<html>not weights</html>", "unsupported_format"),
        (b"", "empty_file"),
    ],
)
def test_what_is_no_checkpoint_for_it_is_refused_in_words(client: httpx.Client, content: bytes, code: str):
    answer = convert(client, content, ARCHITECTURE, "onnx")
    body = answer.json()
    problem = body.get("problem") or body
    assert problem["code"] == code, answer.text
    assert problem["detail"]
    assert body.get("state") in (None, "failed")


def test_an_unknown_architecture_is_answered_with_the_nearest_names(client, trained):
    answer = convert(client, saved(trained.state_dict()), "torchvision/squeezenet", "onnx")
    assert answer.status_code == 404
    assert answer.json()["code"] == "unknown_architecture"
    assert any("squeezenet1" in name for name in answer.json()["nearest"])


def test_a_stochastic_module_is_inconclusive_and_never_a_pass(client):
    names = [item["name"] for item in client.get("/v1/architectures", params={"query": "stochastic"}).json()["items"]]
    (name,) = (name for name in names if "stochastic" in name)
    from app.architectures.registry import load_registry
    from tests.service.running import PLUGINS

    state = load_registry(PLUGINS).build(name, {}, initialised=True).state_dict()
    conversion = convert(client, saved(dict(state)), name, "torchscript").json()
    assert conversion["verdict"] == "inconclusive", conversion


def test_a_graph_over_the_checkpoint_proves_itself_beside_that_file_alone(client, trained, images, tmp_path: Path):
    content = saved(trained.state_dict())
    asked = '{"external_data":"checkpoint"}'
    conversion = succeeded(convert(client, content, ARCHITECTURE, "onnx", options=asked))
    assert conversion["artifact"]["bytes"] < 100_000 < len(content)
    beside = client.get(f"/v1/conversions/{conversion['id']}/report").json()["export"]["weights_beside"]
    assert beside["filename"] == "weights.pth"
    assert beside["sha256"] == hashlib.sha256(content).hexdigest()
    bundle = client.get(f"/v1/conversions/{conversion['id']}/bundle")
    zipfile.ZipFile(io.BytesIO(bundle.content)).extractall(tmp_path)

    def proof() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", "check.py"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    missing = proof()
    assert missing.returncode == 2
    assert "weights.pth" in missing.stdout
    assert beside["sha256"] in missing.stdout
    (tmp_path / "weights.pth").write_bytes(saved(network(seed=2).state_dict()))
    another = proof()
    assert another.returncode == 1
    assert "another checkpoint than the one that was converted" in another.stdout
    (tmp_path / "weights.pth").write_bytes(content)
    assert proof().returncode == 0
    session = onnxruntime.InferenceSession(str(next(tmp_path.glob("*.onnx"))), providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        outputs = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        np.testing.assert_allclose(outputs[0], trained(images).numpy(), rtol=1e-4, atol=1e-5)


def test_a_graph_over_the_checkpoint_is_not_published(client, trained):
    answer = client.post(
        "/v1/conversions",
        files={"file": ("weights.pth", saved(trained.state_dict()))},
        data={
            "architecture": ARCHITECTURE,
            "target": "onnx",
            "options": '{"external_data":"checkpoint"}',
            "publish": '["s3://models/production/"]',
        },
    )
    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid_options"
