"""The real counterparts of what is fetched and published: an S3-speaking store, an HTTPS server of an own authority."""

import fcntl
import hashlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import trustme
from obstore.store import S3Store

from tests.jobs.service import TIMEOUT
from tests.service.running import free_port

MOTO_LOCK = Path(__file__).parents[2] / "requirements-moto.lock"
KEY, SECRET = "AKIATESTTESTTESTTEST", "secretsecretsecretsecretsecret1234567890"


@contextmanager
def s3_server(directory: Path) -> Iterator[str]:
    """Address of a nanio server with the key above, which checks signatures; ``bucket`` is a directory of it."""
    port = free_port()
    (directory / "models").mkdir(parents=True)
    command = [sys.executable, "-m", "nanio", "serve", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "NANIO_ACCESS_KEY": KEY, "NANIO_SECRET_KEY": SECRET}
    command += ["--data-dir", str(directory)]
    with _running(command, directory.parent / "nanio.log", environment):
        _until_open(port)
        yield f"http://127.0.0.1:{port}"


@contextmanager
def moto_server(directory: Path) -> Iterator[str]:
    """Address of a moto server, which keeps ``bucket`` in memory and takes every key."""
    port = free_port()
    directory.mkdir(parents=True)
    command = [str(_moto_python()), "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    with _running(command, directory / "moto.log"):
        _until_open(port)
        httpx.put(f"http://127.0.0.1:{port}/models").raise_for_status()
        yield f"http://127.0.0.1:{port}"


S3_SERVERS: dict[str, Callable[[Path], AbstractContextManager[str]]] = {"nanio": s3_server, "moto": moto_server}
"""Whose makers know nothing of each other: what holds on both is S3, and no habit of one server."""


def bucket(endpoint: str, name: str = "models") -> S3Store:
    return S3Store(
        name,
        endpoint=endpoint,
        region="us-east-1",
        access_key_id=KEY,
        secret_access_key=SECRET,
        client_options={"allow_http": True},
    )


def _until_open(port: int, patience: float = TIMEOUT) -> None:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on {port}")


@dataclass
class FileServer:
    """Serves files by path over https, with ranges and entity tags. ``breaks``: after how many bytes the connection of
    the next requests closes, by path; ``moved``: where a path is found instead."""

    url: str
    ca_file: Path
    files: dict[str, bytes] = field(default_factory=dict)
    breaks: dict[str, list[int]] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    held: dict[str, threading.Event] = field(default_factory=dict)
    """Paths whose content comes when the event is set."""
    said: dict[str, Iterable[bytes]] = field(default_factory=dict)
    """Whole answers, head and all, of paths at which a server lies."""
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def ranges(self, path: str) -> list[str | None]:
        """The Range headers of the requests for a path."""
        return [headers.get("range") for asked, headers in self.asked if asked == path]


@contextmanager
def https_server(directory: Path, name: str = "localhost") -> Iterator[FileServer]:
    authority = trustme.CA()
    ca_file = directory / f"authority-{name}.pem"
    authority.cert_pem.write_to_path(ca_file)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path
            server.asked.append((path, {k.lower(): v for k, v in self.headers.items()}))
            if path in server.said:
                self.close_connection = True
                with suppress(OSError):  # who asked has had enough
                    self.wfile.writelines(server.said[path])
                return
            if path in server.moved:
                self.send_response(302)
                self.send_header("Location", server.moved[path])
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            content = server.files.get(path.partition("?")[0])
            if content is None:
                self.send_error(404)
                return
            tag = f'"{hash(content) & 0xFFFFFFFF:x}"'
            start = 0
            wanted = self.headers.get("range")
            if wanted and self.headers.get("if-range", tag) == tag:
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            self.send_header("ETag", tag)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            if path in server.held:
                server.held[path].wait(TIMEOUT)
            breaks = server.breaks.get(path, [])
            end = start + breaks.pop(0) if breaks else len(content)
            self.wfile.write(content[start:end])
            if end < len(content):
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, *_: object) -> None: ...

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    listener.socket = context.wrap_socket(listener.socket, server_side=True)
    server = FileServer(f"https://{name}:{listener.server_port}", ca_file)
    thread = threading.Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()


REGISTRY_USER, REGISTRY_PASSWORD = "recast", "U*U"
BCRYPT = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"
"""Of that password: the first test vector of crypt_blowfish."""
MLFLOW = "3.17.2"
MLFLOW_START = 300


@contextmanager
def registry_server(directory: Path) -> Iterator[str]:
    """Address of Debian's docker-registry, which wants the user and the password above."""
    program = shutil.which("docker-registry")
    assert program, "install Debian's package docker-registry"
    port = free_port()
    directory.mkdir(parents=True)
    (directory / "htpasswd").write_text(f"{REGISTRY_USER}:{BCRYPT}\n")
    (directory / "config.yml").write_text(f"""
version: 0.1
storage: {{filesystem: {{rootdirectory: {directory}/data}}}}
http: {{addr: "127.0.0.1:{port}"}}
auth: {{htpasswd: {{realm: tests, path: {directory}/htpasswd}}}}
""")
    command = [program, "serve", str(directory / "config.yml")]
    with _running(command, directory / "registry.log"):
        _until_open(port)
        yield f"127.0.0.1:{port}"


@contextmanager
def mlflow_server(directory: Path) -> Iterator[str]:
    """Address of an MLflow server that keeps files itself."""
    port = free_port()
    directory.mkdir(parents=True)
    command = [str(_mlflow_python()), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{directory}/mlflow.db", "--workers", "1"]
    command += ["--artifacts-destination", str(directory / "files")]
    with _running(command, directory / "mlflow.log"):
        _until_open(port, MLFLOW_START)
        yield f"http://127.0.0.1:{port}"


def _mlflow_python() -> Path:
    return _environment(f"mlflow-{MLFLOW}", f"mlflow=={MLFLOW}")


def _moto_python() -> Path:
    pins = hashlib.sha256(MOTO_LOCK.read_bytes()).hexdigest()[:12]
    return _environment(f"moto-{pins}", "--require-hashes", "-r", str(MOTO_LOCK))


def _environment(name: str, *wanted: str) -> Path:
    """The interpreter of a server's own environment, made once, whoever asks first: its pins are not ours."""
    place = Path.home() / ".cache" / "recast-tests" / name
    python, whole = place / "bin" / "python", place / "whole"
    place.mkdir(parents=True, exist_ok=True)
    mirror = os.environ.get("PIP_EXTRA_ARGS", "").split()
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not whole.exists():
            subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", *mirror, *wanted], check=True)
            whole.touch()
    return python


@contextmanager
def _running(command: list[str], log_path: Path, environment: dict[str, str] | None = None) -> Iterator[None]:
    with log_path.open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        yield
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
