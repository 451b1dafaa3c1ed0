"""Upload and download speed against bare handlers, and the memory of the api meanwhile.

Upload: POST /v1/checkpoints against a bare uvicorn handler that streams the body to disk, hashes it, flushes it, names
it by its hash and flushes that name, as whoever promises to keep it must; one that does none of this is shown beside.
Ours commits a row too. Download: the artifact of a conversion whose architecture is nearly all weights
(plugins/table.py), against a bare handler and, where installed, nginx. The client is curl, so that it costs as little
as possible.
"""

import argparse
import hashlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import psutil
from service import running_service

MB = 10**6
WIDTH = 250
"""Columns of bench/table."""
SIZES = {"10MB": 10 * MB, "300MB": 300 * MB, "2GB": 2000 * MB}
RUNS = {"10MB": 7, "300MB": 3, "2GB": 3}

BARE_HANDLER = """
import hashlib, os, sys
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    path = os.path.join(sys.argv[1], scope["path"].strip("/"))
    if scope["method"] == "POST":
        with open(path, "wb", buffering=0) as file:
            digest, careless, more = hashlib.sha256(), path.endswith("careless"), True
            while more:
                message = await receive()
                file.write(message.get("body", b""))
                if not careless:
                    digest.update(message.get("body", b""))
                more = message.get("more_body", False)
            if not careless:
                os.fsync(file.fileno())
                os.rename(path, os.path.join(sys.argv[1], digest.hexdigest()))
                directory = os.open(sys.argv[1], os.O_RDONLY)
                os.fsync(directory)
                os.close(directory)
        await send({"type": "http.response.start", "status": 201, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})
        return
    size = str(os.path.getsize(path)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", size)]})
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})

import uvicorn
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error")
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int) -> None:
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"nothing listens on port {port}")


@contextmanager
def process(command: list[str], port: int) -> Iterator[str]:
    running = subprocess.Popen(command)
    try:
        wait_for_port(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        running.terminate()
        running.wait()


@contextmanager
def bare_server(directory: Path) -> Iterator[str]:
    port = free_port()
    with process([sys.executable, "-c", BARE_HANDLER, str(directory), str(port)], port) as url:
        yield url


@contextmanager
def nginx(directory: Path) -> Iterator[str | None]:
    if shutil.which("nginx") is None:
        yield None
        return
    port = free_port()
    configuration = directory / "nginx.conf"
    configuration.write_text(
        f"daemon off; pid {directory}/nginx.pid; error_log {directory}/nginx.log; user root;"
        "events {} http { access_log off; sendfile on; server { listen 127.0.0.1:%d; root %s; } }" % (port, directory)
    )
    with process(["nginx", "-c", str(configuration)], port) as url:
        yield url


def curl(*arguments: str) -> float:
    """Seconds of one transfer."""
    done = subprocess.run(
        [
            "curl",
            "-sS",
            "--fail-with-body",
            "-w",
            "%{time_total}",
            *(() if "-o" in arguments else ("-o", os.devnull)),
            *arguments,
        ],
        check=True,
        stdout=subprocess.PIPE,
    )
    return float(done.stdout)


def api_process(port: int) -> psutil.Process:
    """The process that listens on the service's port."""
    for connection in psutil.net_connections("tcp"):
        if connection.laddr.port == port and connection.status == psutil.CONN_LISTEN and connection.pid:
            return psutil.Process(connection.pid)
    raise SystemExit("the api process was not found")


def make_body(path: Path, size: int, salt: int) -> int:
    """A safetensors checkpoint of bench/table of about ``size`` bytes, other for each salt. Returns its rows."""
    rows = (size - 256) // (4 * WIDTH)
    header = {"weight": {"dtype": "F32", "shape": [rows, WIDTH], "data_offsets": [0, 4 * rows * WIDTH]}}
    text = json.dumps(header).encode().ljust(120)
    values = np.random.default_rng(salt).standard_normal((1000, WIDTH), dtype=np.float32)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for start in range(0, rows, len(values)):
            file.write(values[: rows - start].tobytes())
    return rows


def convert(url: str, sha256: str, rows: int) -> str:
    """Address of the artifact made from the uploaded checkpoint."""
    body = {
        "checkpoint": sha256,
        "architecture": "bench/table",
        "architecture_options": {"rows": rows},
        "target": "torchscript",
    }
    answer = httpx.post(f"{url}/v1/conversions", json=body, headers={"Prefer": "wait=600"}, timeout=700)
    conversion = answer.json()
    if conversion.get("state") != "succeeded":
        raise SystemExit(json.dumps(conversion, indent=1)[:3000])
    return f"{url}/v1/conversions/{conversion['id']}/artifact"


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Servers:
    recast: str
    bare: str
    nginx: str | None
    api: psutil.Process
    directory: Path


def measure_upload(name: str, servers: Servers) -> tuple[dict[str, float], int]:
    body = servers.directory / "body"
    ours, bare, careless = [], [], []
    before = peak = servers.api.memory_info().rss
    rows = 0
    for salt in range(RUNS[name]):
        rows = make_body(body, SIZES[name], salt)
        careless.append(curl("-X", "POST", "-T", str(body), f"{servers.bare}/careless"))
        os.sync()  # what it left to be written must not be charged to the next
        bare.append(curl("-X", "POST", "-T", str(body), f"{servers.bare}/upload"))
        ours.append(curl("-X", "POST", "-T", str(body), f"{servers.recast}/v1/checkpoints"))
        peak = max(peak, servers.api.memory_info().rss)
    figures = {"upload_s": statistics.median(ours), "bare_upload_s": statistics.median(bare)}
    figures["careless_upload_s"] = statistics.median(careless)
    figures["upload_ratio"] = figures["bare_upload_s"] / figures["upload_s"]
    figures["rss_growth_mb"] = (peak - before) / MB
    return figures, rows


def measure_download(name: str, rows: int, servers: Servers) -> dict[str, float]:
    artifact = convert(servers.recast, sha256_of(servers.directory / "body"), rows)
    curl("-o", str(servers.directory / "artifact"), artifact)
    ours, bare, fast = [], [], []
    for _ in range(RUNS[name]):
        bare.append(curl(f"{servers.bare}/artifact"))
        ours.append(curl(artifact))
        if servers.nginx:
            fast.append(curl(f"{servers.nginx}/artifact"))
    figures = {"download_s": statistics.median(ours), "bare_download_s": statistics.median(bare)}
    if fast:
        figures["nginx_download_s"] = statistics.median(fast)
    figures["download_ratio"] = figures["bare_download_s"] / figures["download_s"]
    return figures


def print_table(results: dict[str, dict[str, float]]) -> None:
    print("| size | upload s | bare s | ratio | careless s | download s | bare s | ratio | nginx s | api memory MB |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, r in results.items():
        nginx_seconds = f"{r['nginx_download_s']:.2f}" if "nginx_download_s" in r else "not installed"
        print(
            f"| {name} | {r['upload_s']:.2f} | {r['bare_upload_s']:.2f} | {r['upload_ratio']:.2f} "
            f"| {r['careless_upload_s']:.2f} "
            f"| {r['download_s']:.2f} | {r['bare_download_s']:.2f} | {r['download_ratio']:.2f} "
            f"| {nginx_seconds} | {r['rss_growth_mb']:.0f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    arguments = parser.parse_args()
    results: dict[str, dict[str, float]] = {}
    plugins = str(Path(__file__).parent / "plugins")
    with (
        tempfile.TemporaryDirectory(prefix="recast-bench-") as temporary,
        running_service(plugins_dir=plugins) as client,
        bare_server(Path(temporary)) as bare,
        nginx(Path(temporary)) as fast,
    ):
        url = str(client.base_url).rstrip("/")
        servers = Servers(url, bare, fast, api_process(client.base_url.port or 0), Path(temporary))
        for name in arguments.sizes:
            print(f"==> {name}", file=sys.stderr, flush=True)
            uploaded, rows = measure_upload(name, servers)
            results[name] = uploaded | measure_download(name, rows, servers)
    print_table(results)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
