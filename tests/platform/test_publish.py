"""Publishing to real counterparts: an S3-speaking store, a registry, MLflow; read back by clients that are not ours."""

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import obstore
import oras.client
import pytest

from app.domain.webhook import new_secret
from tests.api.server import weights
from tests.jobs.service import TIMEOUT
from tests.platform.conftest import Platform
from tests.platform.receiver import Receiver, receiving
from tests.remotes.servers import (
    KEY,
    REGISTRY_PASSWORD,
    REGISTRY_USER,
    SECRET,
    bucket,
    mlflow_server,
    registry_server,
    s3_server,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("published")


@pytest.fixture(scope="module")
def s3(place: Path) -> Iterator[str]:
    with s3_server(place / "s3") as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def registry(place: Path) -> Iterator[str]:
    with registry_server(place / "registry") as address:
        yield address


@pytest.fixture(scope="module")
def mlflow(place: Path) -> Iterator[str]:
    with mlflow_server(place / "mlflow") as address:
        yield address


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def settings(place: Path, s3: str, registry: str, mlflow: str, receiver: Receiver) -> dict[str, str]:
    remotes = place / "remotes.toml"
    remotes.write_text(f"""
[[remote]]
prefix = "s3://models/"
allow = ["import", "publish"]
endpoint = "{s3}"
internal = true
credentials = {{ access_key_id = "{KEY}", secret_access_key = "{SECRET}" }}

[[remote]]
prefix = "oci://{registry}/"
allow = ["publish"]
endpoint = "http://{registry}"
internal = true
credentials = {{ username = "{REGISTRY_USER}", password = "{REGISTRY_PASSWORD}" }}

[[remote]]
prefix = "mlflow:"
allow = ["publish"]
endpoint = "{mlflow}"
internal = true

[[remote]]
prefix = "models:/"
endpoint = "{mlflow}"
internal = true
""")
    return {"remotes_file": str(remotes), "internal_hosts": '["127.0.0.1"]'}


def published(client: httpx.Client, path: str) -> list[dict[str, Any]]:
    """The publications of a conversion once none is under way."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        found: list[dict[str, Any]] = client.get(path).json()["publications"]
        if not {"waiting", "pending"} & {one["state"] for one in found}:
            return found
        time.sleep(0.1)
    raise AssertionError(client.get(path).text)


def converted(client: httpx.Client, places: list[Any], **members: Any) -> dict[str, Any]:
    data = {"architecture": "test/net", "target": "onnx", "publish": json.dumps(places), **members}
    answer = client.post("/v1/conversions", data=data, files={"file": ("w.pth", weights(uuid4().bytes))})
    assert answer.status_code == 202, answer.text
    told: dict[str, Any] = answer.json()
    return told


def artifact(client: httpx.Client, conversion: dict[str, Any]) -> bytes:
    return client.get(f"{conversion['links']['self']}/artifact").content


def test_a_bucket_gets_the_layout_of_triton_and_the_next_version_each_time(
    client: httpx.Client, s3: str, receiver: Receiver
):
    secret, path = new_secret(), f"/{uuid4().hex}"
    told = {"url": receiver.url + path, "secret": secret, "events": ["conversion.published"]}
    first = converted(client, [{"uri": "s3://models/triton/", "name": "net"}], webhook=json.dumps(told))
    (done,) = published(client, first["links"]["self"])
    assert done["state"] == "published", done
    assert (done["receipt"]["uri"], done["receipt"]["version"]) == ("s3://models/triton/net/1/model.onnx", 1)
    held = bytes(obstore.get(bucket(s3), "triton/net/1/model.onnx").bytes())
    assert held == artifact(client, first)
    assert hashlib.sha256(held).hexdigest() == done["receipt"]["sha256"]
    config = bytes(obstore.get(bucket(s3), "triton/net/config.pbtxt").bytes()).decode()
    assert 'backend: "onnxruntime"' in config
    assert "dims: [ -1, 3 ]" in config
    assert json.loads(receiver.at(path, 1)[0].body)["data"]["id"] == first["id"]

    again = client.post(
        f"{first['links']['self']}/publish", json={"publish": [{"uri": "s3://models/triton/", "name": "net"}]}
    )
    assert again.status_code == 202
    assert published(client, first["links"]["self"]) == [done]
    second = converted(client, [{"uri": "s3://models/triton/", "name": "net"}])
    assert published(client, second["links"]["self"])[0]["receipt"]["version"] == 2
    third = converted(client, [{"uri": "s3://models/triton/", "name": "net", "version": 1}])
    (refused,) = published(client, third["links"]["self"])
    assert (refused["state"], refused["error"]["code"]) == ("failed", "publish_failed")
    mixed = converted(client, [{"uri": "s3://models/triton/", "name": "net"}], target="torchscript")
    assert "another backend" in published(client, mixed["links"]["self"])[0]["error"]["detail"]
    script = converted(client, [{"uri": "s3://models/triton/", "name": "script"}], target="torchscript")
    published(client, script["links"]["self"])
    config = bytes(obstore.get(bucket(s3), "triton/script/config.pbtxt").bytes()).decode()
    assert 'backend: "pytorch"' in config
    assert '"INPUT__0"' in config


def test_a_registry_gets_an_artifact_that_another_client_pulls(client: httpx.Client, registry: str, tmp_path: Path):
    uri = f"oci://{registry}/vision/net:v1"
    conversion = converted(client, [uri])
    (done,) = published(client, conversion["links"]["self"])
    assert done["state"] == "published", done
    puller = oras.client.OrasClient(insecure=True, auth_backend="basic")
    puller.auth.set_basic_auth(REGISTRY_USER, REGISTRY_PASSWORD)
    pulled = [Path(one) for one in puller.pull(target=f"{registry}/vision/net:v1", outdir=str(tmp_path))]
    model = next(one for one in pulled if one.suffix == ".onnx")
    assert model.read_bytes() == artifact(client, conversion)
    assert {one.name for one in pulled} >= {"report.json"}


def test_mlflow_gets_a_version_whose_file_can_be_imported_again(client: httpx.Client, mlflow: str):
    conversion = converted(client, ["mlflow:net"])
    (done,) = published(client, conversion["links"]["self"])
    assert done["state"] == "published", done
    assert done["receipt"]["uri"] == "models:/net/1"
    version = httpx.get(f"{mlflow}/api/2.0/mlflow/model-versions/get?name=net&version=1").json()["model_version"]
    tags = {tag["key"]: tag["value"] for tag in version["tags"]}
    assert tags["recast.conversion"] == conversion["id"]
    answer = client.post(
        "/v1/conversions",
        json={
            "architecture": "test/net",
            "target": "onnx",
            "checkpoint": {"uri": "models:/net/1/test-net.onnx", "sha256": done["receipt"]["sha256"]},
        },
    )
    fetched = client.get(answer.json()["links"]["self"], headers={"Prefer": "wait=60"}).json()
    assert fetched["state"] == "succeeded", (fetched, client.get(fetched["links"]["log"]).text)
    missing = client.post(
        "/v1/conversions",
        json={"architecture": "test/net", "target": "onnx", "checkpoint": {"uri": "models:/net/1"}},
    ).json()
    ended = client.get(missing["links"]["self"], headers={"Prefer": "wait=60"}).json()
    assert (ended["problem"]["code"], "holds 0 files of weights" in ended["problem"]["detail"]) == (
        "fetch_failed",
        True,
    )


def test_a_conversion_that_fails_is_published_nowhere_and_places_are_checked_at_once(client: httpx.Client):
    failed = converted(client, ["s3://models/triton/"], architecture="test/refuse")
    assert [one["state"] for one in published(client, failed["links"]["self"])] == ["skipped"]
    assert client.post(f"{failed['links']['self']}/publish", json={"publish": ["s3://models/"]}).status_code == 409
    asked = {"architecture": "test/net", "target": "onnx"}
    for places, code in (
        (["s3://elsewhere/triton/"], "source_not_allowed"),
        (["https://example.com/"], "invalid_request"),
        ([], "invalid_request"),
        ([{"uri": "s3://models/", "name": "../up"}], "invalid_request"),
        (["s3://models/../elsewhere/"], "invalid_request"),
    ):
        answer = client.post("/v1/conversions", json={**asked, "checkpoint": "0" * 64, "publish": places})
        assert answer.json()["code"] == code, answer.text


def test_credentials_are_neither_told_nor_logged(platform: Platform):
    said = platform.worker_log.read_text()
    assert SECRET not in said
    assert REGISTRY_PASSWORD not in said
