"""Precisions over HTTP: a ladder of them in one request, priced; budgets, and files made for other runtimes."""

import io

import httpx
import onnx
import torch

from tests.plugins.tied import TiedLanguageModel
from tests.service.requests import artifact, convert, saved, succeeded


def weights() -> bytes:
    torch.manual_seed(8)
    return saved(TiedLanguageModel(120, 24).state_dict())


def test_one_request_gives_every_precision_and_what_each_costs(client: httpx.Client) -> None:
    answer = convert(client, weights(), "sample/tied", "onnx", precisions='["fp32", "bf16", "int8"]')
    group = answer.json()
    assert group["state"] == "succeeded", answer.text
    exact, brain, int8 = client.get(group["links"]["prices"]).json()["items"]
    assert exact["size"] == 1
    assert int8["bytes"] > 0
    assert brain["bytes"] < exact["bytes"]
    assert all(one["verdict"].startswith("pass") and one["worst_ratio"] < 1 for one in (exact, brain))
    assert all(one["latency"] > 0 for one in (exact, brain, int8))
    assert int8["verdict"] == "within_budget"
    assert int8["snr_db"] > 20
    assert int8["top1"] >= 0.99
    report = client.get(f"/v1/conversions/{int8['id']}/report", headers={"Accept": "application/json"}).json()
    assert report["derived_from"]["sha256"]
    assert report["derived_from"]["verification"]["verdict"].startswith("pass")
    page = client.get(f"/v1/conversions/{int8['id']}/report", headers={"Accept": "text/html"}).text
    assert "Within its budget" in page
    assert "Layers in 8 bits" in page


def test_a_budget_that_cannot_be_kept_is_refused_in_words_with_the_layers(client: httpx.Client) -> None:
    options = '{"precision": "int8", "activations": "static", "budget": {"snr_db": 120}}'
    problem = convert(client, weights(), "sample/tied", "onnx", options=options).json()
    assert problem["code"] == "over_budget"
    assert "the layers that lose most" in problem["detail"]


def test_a_file_for_another_runtime_keeps_to_what_it_reads(client: httpx.Client) -> None:
    conversion = succeeded(convert(client, weights(), "sample/tied", "onnx", options='{"runtime": "opencv-4"}'))
    model = onnx.load(io.BytesIO(artifact(client, conversion)))
    assert model.opset_import[0].version <= 17
    assert model.ir_version <= 10
    report = client.get(f"/v1/conversions/{conversion['id']}/report", headers={"Accept": "application/json"}).json()
    assert report["export"]["made_for"].startswith("OpenCV 4")
    refused = convert(client, weights(), "sample/tied", "onnx", options='{"runtime": "ort-1.17", "opset": 21}')
    assert refused.status_code == 422
    assert "opset 21 is newer than 20" in refused.json()["detail"]
