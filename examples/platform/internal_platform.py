"""An internal platform on top of Recast, in one run: weights lie in a bucket, the service fetches and converts them to
two targets, tells the platform by signed webhooks, publishes the files as Triton serves them, and signs what it proved.

    .venv/bin/python examples/platform/internal_platform.py

What is the platform's own here (a bucket, a receiver of webhooks) is started beside the service, on this machine.
"""

import base64
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import obstore
import torch
from obstore.store import S3Store
from recast_client.statement import signed_statement
from safetensors.torch import save
from standardwebhooks import Webhook

PLUGINS = Path(__file__).parent.parent / "digits" / "plugins"
KEY, SECRET = "AKIAPLATFORMPLATFORM", "a-secret-of-forty-characters-for-the-s3"
TARGETS = [{"target": "onnx", "options": {"opset": 18}}, {"target": "torchscript"}]
START_LIMIT = 180.0
MESSAGE_LIMIT = 240.0
"""Seconds."""


def say(text: str) -> None:
    print(f"==> {text}", flush=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: list[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


@contextmanager
def bucket(place: Path) -> Iterator[tuple[str, S3Store]]:
    """A bucket called models on a server that speaks S3: its address, and a way in."""
    port = free_port()
    (place / "s3" / "models").mkdir(parents=True)
    endpoint = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "nanio", "serve", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--data-dir", str(place / "s3")]
    with running(command, place / "s3.log", NANIO_ACCESS_KEY=KEY, NANIO_SECRET_KEY=SECRET):
        until(lambda: httpx.get(endpoint, timeout=2) is not None)
        options: Any = {"access_key_id": KEY, "secret_access_key": SECRET, "client_options": {"allow_http": True}}
        yield endpoint, S3Store("models", endpoint=endpoint, region="us-east-1", **options)


@contextmanager
def receiver() -> Iterator[tuple[str, "queue.Queue[tuple[dict[str, str], bytes]]"]]:
    """A receiver of webhooks: its address, and what arrives."""
    arrived: queue.Queue[tuple[dict[str, str], bytes]] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            arrived.put(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/recast", arrived
    server.shutdown()


@contextmanager
def service(place: Path, endpoint: str) -> Iterator[httpx.Client]:
    """`recast serve`, whose operator allows the bucket to be read from and published to."""
    remotes = place / "remotes.toml"
    remotes.write_text(f"""
[[remote]]
prefix = "s3://models/"
allow = ["import", "publish"]
endpoint = "{endpoint}"
internal = true
credentials = {{ access_key_id = "{KEY}", secret_access_key = "{SECRET}" }}
""")
    port = free_port()
    command = [str(Path(sys.executable).with_name("recast")), "serve", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--data-dir", str(place / "data")]
    settings = {
        "RECAST_PLUGINS_DIR": str(PLUGINS),
        "RECAST_REMOTES_FILE": str(remotes),
        "RECAST_INTERNAL_HOSTS": '["127.0.0.1"]',
    }
    with running(command, place / "service.log", **settings) as process:
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
        until(lambda: process.poll() is not None or client.get("/readyz").status_code == 200)
        assert process.poll() is None, (place / "service.log").read_text()[-2000:]
        yield client


def until(condition: Any) -> None:
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            if condition():
                return
        time.sleep(0.2)
    raise SystemExit("It did not start in time.")


def train() -> bytes:
    """Weights of examples/digits, as safetensors."""
    sys.path.insert(0, str(PLUGINS))
    import digits

    torch.manual_seed(0)
    return save(dict(digits.digits().state_dict()))


def told(
    arrived: "queue.Queue[tuple[dict[str, str], bytes]]", secret: str, wanted: int
) -> dict[tuple[str, str], dict[str, Any]]:
    """So many messages, each verified, by type and conversion; one that comes twice counts once."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    while len(found) < wanted:
        headers, body = arrived.get(timeout=MESSAGE_LIMIT)
        message = Webhook(secret).verify(body, headers)
        key = (message["type"], message["data"]["id"])
        if key not in found:
            say(f"told of {message['type']}: {message['data']['target']}, signature verified")
        found[key] = message
    return found


def verify_statement(client: httpx.Client, conversion: dict[str, Any]) -> None:
    """That the service signed what it proved of exactly this file."""
    keys = client.get("/.well-known/recast-key").json()
    envelope = client.get(f"{conversion['links']['self']}/statement").content
    sha256 = conversion["artifact"]["sha256"]
    statement = signed_statement(envelope, public_keys(keys), sha256)
    say(f"statement of {conversion['target']} verified: verdict {statement['predicate']['verdict']}")


def public_keys(document: Any) -> list[str]:
    return [str(key["public"]) for key in document["keys"]]


def main() -> None:
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recast-platform-")))
        endpoint, models = stack.enter_context(bucket(place))
        address, arrived = stack.enter_context(receiver())
        say("starting the service")
        client = stack.enter_context(service(place, endpoint))
        obstore.put(models, "trained/digits.safetensors", train())

        secret = "whsec_" + base64.b64encode(os.urandom(32)).decode()
        events = ["conversion.succeeded", "conversion.failed", "conversion.published", "conversion.publish_failed"]
        client.post("/v1/webhooks", json={"url": address, "secret": secret, "events": events}).raise_for_status()
        say("asking for both targets of s3://models/trained/digits.safetensors")
        answer = client.post(
            "/v1/groups",
            headers={"Idempotency-Key": "digits-2026-11"},
            json={
                "architecture": "examples/digits",
                "checkpoint": {"uri": "s3://models/trained/digits.safetensors"},
                "targets": TARGETS,
                "labels": {"team": "vision", "run": "2026-11"},
                "publish": ["s3://models/triton/"],
            },
        )
        answer.raise_for_status()
        messages = told(arrived, secret, 2 * len(TARGETS))
        assert {kind for kind, _ in messages} == {"conversion.succeeded", "conversion.published"}, messages

        for conversion in client.get(answer.headers["location"]).json()["conversions"]:
            assert conversion["labels"]["team"] == "vision"
            (published,) = conversion["publications"]
            place_of = published["receipt"]["uri"].removeprefix("s3://models/")
            held = bytes(obstore.get(models, place_of).bytes())
            artifact = client.get(conversion["links"]["artifact"]).content
            assert held == artifact
            say(f"published {published['receipt']['uri']}, {len(held)} bytes, verdict {conversion['verdict']}")
            verify_statement(client, conversion)
        say(json.dumps(sorted(entry["path"] for page in obstore.list(models, "triton") for entry in page)))


if __name__ == "__main__":
    main()
