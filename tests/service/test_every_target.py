"""Every target over HTTP, as its users get it: proved, run in its own runtime, filled anew, and a source of weights."""

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx
import pytest
import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from app.architectures.calibration import calibrated_state_dict
from app.architectures.registry import load_registry
from app.targets.specs import SPECS
from tests.service.requests import artifact, convert, saved, succeeded
from tests.service.running import PLUGINS

NAME = "sample/matching"


def weights(seed: int) -> dict[str, Tensor]:
    return calibrated_state_dict(load_registry(PLUGINS), NAME, {}, seed)


def network(state: dict[str, Tensor]) -> nn.Module:
    module = load_registry(PLUGINS).build(NAME, {}, initialised=True)
    module.load_state_dict(state)
    return module.eval()


@pytest.mark.parametrize("target", SPECS)
def test_it_is_proved_and_other_weights_fill_its_template(client: httpx.Client, tmp_path: Path, target: str) -> None:
    conversions = [succeeded(convert(client, saved(weights(seed)), NAME, target)) for seed in (1, 2)]
    reports = [client.get(f"/v1/conversions/{conversion['id']}/report").json() for conversion in conversions]
    assert [report["export"]["template"]["state"] for report in reports] == ["built", "reused"]
    for report in reports:
        assert report["verification"]["verdict"] == "pass"
        assert report["verification"]["ledger"]["passed"]
        assert all(probe["passed"] for probe in report["verification"]["probes"])
    bundle = client.get(f"/v1/conversions/{conversions[1]['id']}/bundle")
    zipfile.ZipFile(io.BytesIO(bundle.content)).extractall(tmp_path)
    command = [sys.executable, "-I", "check.py"]
    proof = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert proof.returncode == 0, proof.stdout + proof.stderr


def test_a_pt2_file_runs_in_torch_alone_and_says_what_it_is(client: httpx.Client, tmp_path: Path) -> None:
    state = weights(1)
    conversion = succeeded(convert(client, saved(state), NAME, "pt2", options='{"embed": {"by": "me"}}'))
    (tmp_path / "model.pt2").write_bytes(artifact(client, conversion))
    files = {"recast.json": ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=files).module()
    inputs = torch.randint(0, 100, (5, 4)), torch.ones(5, 4, dtype=torch.bool), torch.randn(5, 3, 16, 16)
    with torch.inference_mode():
        for given, expected in zip(program(*inputs), network(state)(*inputs).values(), strict=True):
            torch.testing.assert_close(given, expected)
    told = json.loads(files["recast.json"])
    assert (told["recast.architecture"], told["by"]) == (NAME, "me")
    assert told["recast.weights_sha256"] == conversion["checkpoint"]["sha256"]


@pytest.mark.parametrize("source", ["torchscript", "pt2", "safetensors"])
def test_a_program_is_a_source_of_its_weights_for_several_targets(client: httpx.Client, source: str) -> None:
    state = weights(3)
    checkpoint = saved({"epoch": 3, "model": {f"module.{key}": value for key, value in state.items()}})
    old = artifact(client, succeeded(convert(client, checkpoint, NAME, source)))
    answer = client.post(
        "/v1/conversions",
        headers={"Prefer": "wait=240"},
        files={"file": (f"old{SPECS[source].suffix}", old)},
        data={"architecture": NAME, "targets": json.dumps([{"target": t} for t in ("onnx", "pt2", "safetensors")])},
    )
    *programs, clean = answer.json()["conversions"]
    for program in programs:
        report = client.get(f"/v1/conversions/{program['id']}/report").json()
        assert report["verification"]["verdict"] == "pass", report
        assert report["checkpoint"]["format"] == source
    kept = load_safetensors(artifact(client, clean))
    counters = {key for key in state if key.endswith("num_batches_tracked")}
    assert state.keys() - counters <= kept.keys() <= state.keys()
    assert all(torch.equal(value, state[key]) for key, value in kept.items() if key not in counters)
