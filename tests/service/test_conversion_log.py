"""The log of a real conversion: what each exporter said of a model that it could not express."""

import torch

from tests.plugins.branching import Branching
from tests.service.requests import convert, saved


def test_the_log_tells_why_every_exporter_failed_with_the_cause(client):
    torch.manual_seed(3)
    failed = convert(client, saved(Branching().state_dict()), "sample/branching", "onnx", force="true").json()
    said = client.get(f"/v1/conversions/{failed['id']}/log").text
    rungs = [rung for rung in failed["rungs"] if rung["outcome"] == "failed"] if "rungs" in failed else []
    assert "dynamo" in said
    for rung in rungs:
        assert f"{rung['exporter']} failed" in said
    assert "direct cause" in said or "another exception occurred" in said, said
    assert "/site-packages" not in said
