"""The body of scripts/quickstart. Every request is shown as the curl command that does the same."""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

HERE = Path(__file__).parent
DATA = Path("quickstart-data")
START_LIMIT = 180.0
"""Seconds the service may take to be ready: the first start makes the database and imports every model library."""


def say(text: str) -> None:
    print(f"==> {text}", flush=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_service(port: int) -> subprocess.Popen[bytes]:
    """`recast serve` in a session of its own, so that --keep can leave it running."""
    environment = {**os.environ, "RECAST_PLUGINS_DIR": str(HERE / "plugins")}
    command = [str(Path(sys.executable).with_name("recast")), "serve"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--data-dir", str(DATA / "service")]
    print("    $ RECAST_PLUGINS_DIR=examples/digits/plugins recast " + " ".join(command[1:]))
    log = (DATA / "service.log").open("wb")
    return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)


def wait_until_ready(url: str, service: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline:
        if service.poll() is not None:
            raise SystemExit(f"The service ended with code {service.returncode}; see {DATA / 'service.log'}.")
        try:
            if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.3)
    raise SystemExit(f"The service was not ready after {START_LIMIT:.0f} s; see {DATA / 'service.log'}.")


@contextmanager
def running_service(port: int, *, keep: bool) -> Iterator[str]:
    """Address of a ready service. It is stopped at the end, unless it is to be kept and nothing went wrong."""
    service = start_service(port)
    url = f"http://127.0.0.1:{port}"
    finished = False
    try:
        wait_until_ready(url, service)
        yield url
        finished = True
    finally:
        if not (keep and finished):
            service.send_signal(signal.SIGTERM)
            service.wait(timeout=60)


def convert(client: httpx.Client, checkpoint: Path, target: str) -> dict[str, object]:
    """One conversion from upload to verdict, in one request."""
    print(
        f"    $ curl -sS --fail-with-body -H 'Prefer: wait=120' -F file=@{checkpoint} "
        f"-F architecture=examples/digits -F target={target} {client.base_url}/v1/conversions".replace("//v1", "/v1")
    )
    with checkpoint.open("rb") as file:
        answer = client.post(
            "/v1/conversions",
            headers={"Prefer": "wait=120"},
            files={"file": (checkpoint.name, file)},
            data={"architecture": "examples/digits", "target": target},
        )
    if answer.is_error:
        raise SystemExit(f"{answer.status_code}: {answer.text}")
    conversion: dict[str, object] = answer.json()
    print(f"    {conversion['id']}: {conversion['state']}, verdict {conversion['verdict']}")
    if conversion["state"] != "succeeded":
        raise SystemExit(answer.text)
    return conversion


def download(client: httpx.Client, conversion: dict[str, object], what: str, path: Path) -> Path:
    print(f"    $ curl -sS -o {path} {client.base_url}/v1/conversions/{conversion['id']}/{what}".replace("//v1", "/v1"))
    with client.stream("GET", f"/v1/conversions/{conversion['id']}/{what}", headers={"Accept": "*/*"}) as answer:
        answer.raise_for_status()
        with path.open("wb") as file:
            for chunk in answer.iter_bytes():
                file.write(chunk)
    return path


def run(script: str, *arguments: Path) -> None:
    subprocess.run([sys.executable, str(HERE / script), *map(str, arguments)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the service running and print its address")
    keep = parser.parse_args().keep
    shutil.rmtree(DATA, ignore_errors=True)
    DATA.mkdir()
    checkpoint, test_set = DATA / "checkpoint.pth", DATA / "test-set.npz"

    say("Training a small network on scikit-learn's digits (a few seconds)")
    run("train.py", checkpoint, test_set)
    say("Starting Recast on its embedded default (the first start takes up to half a minute)")
    with running_service(free_port(), keep=keep) as url, httpx.Client(base_url=url, timeout=180) as client:
        say("Converting to ONNX and to TorchScript")
        onnx, torchscript = convert(client, checkpoint, "onnx"), convert(client, checkpoint, "torchscript")
        say("Downloading the artifacts and the bundle with report and proof")
        files = [
            download(client, onnx, "artifact", DATA / "digits.onnx"),
            download(client, torchscript, "artifact", DATA / "digits.pt"),
        ]
        download(client, onnx, "bundle", DATA / "digits-onnx.zip")
        say("Running them with onnxruntime and torch.jit, without the network's code")
        run("compare.py", test_set, *files)
        say(f"Done. Report of the ONNX conversion: {url}/v1/conversions/{onnx['id']}/report")
    if keep:
        say(f"The service still runs at {url} (log: {DATA / 'service.log'}); docs: {url}/docs")
    else:
        say(f"The service was stopped. Files are in {DATA}/; unzip digits-onnx.zip for report.html and check.py")


if __name__ == "__main__":
    main()
