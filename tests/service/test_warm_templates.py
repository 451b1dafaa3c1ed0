"""Templates named in the settings are there before the first client sends weights."""

import time

import httpx

from app.architectures.registry import load_registry
from app.domain.conversion import TARGET_NAMES
from tests.service.requests import convert, saved, succeeded
from tests.service.running import PLUGINS

ARCHITECTURE = "sample/tied"


def test_the_first_real_conversion_of_a_warmed_architecture_reuses_its_template(client: httpx.Client):
    deadline = time.monotonic() + 180
    while len(warmed := finished(client)) < len(TARGET_NAMES):
        assert time.monotonic() < deadline, warmed
        time.sleep(0.5)
    state = load_registry(PLUGINS).build(ARCHITECTURE, {}, initialised=True).state_dict()
    for target in TARGET_NAMES:
        conversion = succeeded(convert(client, saved(dict(state)), ARCHITECTURE, target))
        report = client.get(f"/v1/conversions/{conversion['id']}/report").json()
        assert report["export"]["template"]["state"] == "reused"


def finished(client: httpx.Client) -> list[str]:
    query = {"architecture": ARCHITECTURE, "status": "succeeded"}
    items = client.get("/v1/conversions", params=query).json()["items"]
    return [item["id"] for item in items if item["checkpoint"]["filename"] == "rehearsal.pth"]
