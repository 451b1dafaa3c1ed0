"""The Python client against the real api; conversions end as the test says."""

import asyncio
import socket
import threading
import zipfile
from concurrent.futures import Future, ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from uuid import uuid4

import pytest
from recast_client import (
    AsyncClient,
    BundleDamaged,
    Client,
    Conversion,
    ConversionFailed,
    NotAccepted,
    RecastError,
    Unreachable,
    flows,
    verify_bundle,
)
from recast_client.flows import ACCEPTED, accepted

from app.api import resumable
from app.domain.conversion import State
from app.domain.errors import Problem
from app.domain.report import Verdict
from tests.api.server import Backstage, sha256, weights


@pytest.fixture
def recast(url: str):
    with Client(url) as connected:
        yield connected


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "weights.pth"
    path.write_bytes(weights(uuid4().bytes))
    return path


def asked(recast: Client, checkpoint: Path, **request: object) -> Conversion:
    return recast.convert(checkpoint, architecture="torchvision/resnet18", wait=False, **request)


def in_background(work) -> Future:
    return ThreadPoolExecutor(1).submit(work)


def test_a_file_is_converted_downloaded_and_its_bundle_verified(
    recast: Client, checkpoint: Path, backstage: Backstage, tmp_path: Path
):
    sent: list[tuple[int, int]] = []
    conversion = asked(recast, checkpoint, progress=lambda done, total: sent.append((done, total)))
    assert sent[-1] == (checkpoint.stat().st_size, checkpoint.stat().st_size)
    waiting = in_background(lambda: recast.wait(conversion))
    backstage.finish(conversion.id)
    finished = waiting.result(timeout=60)
    assert (finished.state, finished.verdict) == ("succeeded", "pass")
    (path,) = recast.download(finished, tmp_path / "out")
    assert path.name == "torchvision-resnet18.onnx"
    assert path.read_bytes() == b"the artifact's bytes " * 100_000
    (bundle,) = recast.download(finished, tmp_path / "out", bundle=True)
    assert verify_bundle(bundle)["conversion_id"] == finished.id
    assert list(tmp_path.glob("out/.*")) == []
    assert "pass" in finished._repr_html_()


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as large, and nobody waits for them to be read, which no worker does here."""
    monkeypatch.setattr(flows, "RESUMABLE", 50_000)
    monkeypatch.setattr(flows, "PART", 40_000)
    monkeypatch.setattr(resumable, "READING_PATIENCE", 0)


@pytest.mark.usefixtures("in_parts")
def test_a_large_file_is_sent_in_parts(recast: Client, checkpoint: Path, tmp_path: Path, url: str):
    probes = tmp_path / "probes.npz"
    probes.write_bytes(b"PK probes")
    checkpoint.write_bytes(checkpoint.read_bytes().ljust(100_000, b"x"))
    sent: list[tuple[int, int]] = []
    conversion = asked(recast, checkpoint, probes=probes, progress=lambda done, total: sent.append((done, total)))
    assert sent == [(40_000, 100_000), (80_000, 100_000), (100_000, 100_000)]
    assert conversion.document["checkpoint"]["sha256"] == sha256(checkpoint.read_bytes())
    checkpoint.write_bytes(b"<html>".ljust(100_000))
    with pytest.raises(RecastError) as refused:
        asked(recast, checkpoint)
    assert refused.value.code == "unsupported_format"

    async def concurrently() -> str:
        checkpoint.write_bytes(weights(uuid4().bytes).ljust(60_000, b"y"))
        async with AsyncClient(url) as other:
            made = await other.convert(checkpoint, architecture="torchvision/resnet18", wait=False)
            return str(made.document["checkpoint"]["sha256"])

    assert asyncio.run(concurrently()) == sha256(checkpoint.read_bytes())


def test_a_part_that_arrived_unnoticed_is_not_sent_again(checkpoint: Path):
    checkpoint.write_bytes(b"x" * 100_000)
    sending = flows.upload(checkpoint)
    next(sending)
    first = sending.send((201, {"location": "/v1/uploads/upl_1"}))
    assert (first.part.offset, first.part.length) == (0, 100_000)
    second = sending.send((409, {"upload-offset": "70000"}))
    assert (second.part.offset, second.part.length) == (70_000, 30_000)


def test_probes_are_sent_beside_a_file_that_is_there_already(checkpoint: Path, tmp_path: Path):
    probes = tmp_path / "probes.npz"
    probes.write_bytes(b"probes")
    step = next(flows.submit("ab" * 32, architecture="torchvision/resnet18", probes=probes))
    assert step.form["checkpoint"] == "ab" * 32
    assert step.uploads == {"probes": probes}
    step = next(flows.submit(checkpoint, architecture="torchvision/resnet18", probes=probes))
    assert "checkpoint" not in step.form
    assert step.uploads == {"probes": probes, "file": checkpoint}


def test_an_older_service_gets_large_files_in_one_piece(checkpoint: Path):
    sending = flows.upload(checkpoint)
    next(sending)
    with pytest.raises(StopIteration) as end:
        sending.send((404, {}))
    assert end.value.value is None


def test_options_reach_the_service(recast: Client, checkpoint: Path):
    conversion = asked(recast, checkpoint, options={"opset": 19}, architecture_options={"num_classes": 37})
    assert conversion.document["options"]["opset"] == 19
    assert conversion.document["architecture_options"] == {"num_classes": 37}


def test_an_inconclusive_conversion_is_not_taken_for_success(recast: Client, checkpoint: Path, backstage: Backstage):
    conversion = asked(recast, checkpoint)
    backstage.finish(conversion.id, verdict=Verdict.inconclusive)
    finished = recast.wait(conversion)
    with pytest.raises(NotAccepted) as refused:
        accepted(finished, ACCEPTED)
    assert refused.value.conversion.verdict == "inconclusive"


def test_an_inconclusive_conversion_succeeds_where_that_is_accepted(
    recast: Client, checkpoint: Path, backstage: Backstage
):
    accept = ("pass", "pass_with_notes", "inconclusive")
    conversion = asked(recast, checkpoint, accept=accept)
    backstage.finish(conversion.id, verdict=Verdict.inconclusive)
    assert accepted(recast.wait(conversion), accept).state == "succeeded"


def test_a_failed_conversion_is_an_error_with_its_cause(recast: Client, checkpoint: Path, backstage: Backstage):
    conversion = asked(recast, checkpoint)
    problem = Problem(code="export_failed", title="No", status=422, detail="It cannot be.", hint="Try another.")
    backstage.finish(conversion.id, state=State.failed, verdict=None, problem=problem, artifact=None)
    with pytest.raises(ConversionFailed, match=r"It cannot be\. Try another\."):
        accepted(recast.get(conversion.id), ACCEPTED)


def test_what_the_service_refuses_is_its_problem(recast: Client, checkpoint: Path):
    with pytest.raises(RecastError) as refused:
        recast.convert(checkpoint, architecture="torchvision/resnet19")
    assert refused.value.code == "unknown_architecture"
    assert "torchvision/resnet18" in str(refused.value.document)


def test_events_are_followed_to_the_end(recast: Client, checkpoint: Path, backstage: Backstage):
    conversion = asked(recast, checkpoint)
    following = in_background(lambda: [event.state for event in recast.follow(conversion)])
    backstage.finish(conversion.id)
    states = following.result(timeout=60)
    assert states[0] == "queued"
    assert states[-1] == "succeeded"


def test_the_list_is_walked_page_by_page(recast: Client, tmp_path: Path):
    made = set()
    for number in range(3):
        path = tmp_path / f"{number}.pth"
        path.write_bytes(weights(uuid4().bytes))
        made.add(recast.convert(path, architecture="torchvision/resnet50", wait=False).id)
    assert {each.id for each in recast.conversions(architecture="torchvision/resnet50", limit="2")} == made


def test_one_can_be_canceled_and_retried(recast: Client, checkpoint: Path):
    conversion = asked(recast, checkpoint)
    assert recast.cancel(conversion).state == "canceled"
    assert recast.retry(conversion).state == "queued"


def test_the_async_client_does_the_same(url: str, checkpoint: Path, backstage: Backstage, tmp_path: Path):
    async def work() -> list[Path]:
        async with AsyncClient(url) as recast:
            conversion = await recast.convert(checkpoint, architecture="torchvision/resnet18", wait=False)
            waiting = asyncio.create_task(recast.wait(conversion))
            await asyncio.to_thread(backstage.finish, conversion.id)
            finished = await waiting
            states = [event.state async for event in recast.follow(finished)]
            assert states[-1] == "succeeded"
            assert [each.id async for each in recast.conversions(limit="1")]
            return await recast.download(finished, tmp_path / "async")

    (path,) = asyncio.run(work())
    assert path.stat().st_size > 0


class Flaky(BaseHTTPRequestHandler):
    """Answers 503 twice, then the conversion; remembers the idempotency keys."""

    keys: list[str] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.keys.append(self.headers["Idempotency-Key"])
        ready = len(self.keys) == 3
        body = b'{"id": "cnv_1", "state": "queued"}' if ready else b"{}"
        self.send_response(202 if ready else 503)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_a_request_is_repeated_with_one_idempotency_key():
    server = HTTPServer(("127.0.0.1", 0), Flaky)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with Client(f"http://127.0.0.1:{server.server_port}") as recast:
            assert recast.convert("a" * 64, architecture="x", wait=False).id == "cnv_1"
        assert len(Flaky.keys) == 3
        assert len(set(Flaky.keys)) == 1
    finally:
        server.shutdown()
        server.server_close()


def test_a_service_that_is_not_there_is_told():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with Client(address, attempts=2) as recast, pytest.raises(Unreachable):
        recast.get("cnv_" + "0" * 32)


def test_a_bundle_that_was_changed_is_refused(tmp_path: Path):
    bundle = tmp_path / "bundle.zip"
    with zipfile.ZipFile(bundle, "w") as archive:
        archive.writestr("model.onnx", b"changed")
        archive.writestr("manifest.json", '{"members": [{"name": "model.onnx", "sha256": "00", "bytes": 7}]}')
    with pytest.raises(BundleDamaged, match=r"model\.onnx is not what the manifest says"):
        verify_bundle(bundle)
    bundle.write_bytes(b"no zip")
    with pytest.raises(BundleDamaged):
        verify_bundle(bundle)


def test_a_bar_shows_the_upload_the_stages_and_the_verdict(
    recast: Client, checkpoint: Path, backstage: Backstage, capsys: pytest.CaptureFixture[str]
):
    waiting = in_background(
        lambda: recast.convert(checkpoint, architecture="torchvision/resnet18", bar=True, members={"name": "watched"})
    )
    while not (asked_for := [c for c in recast.conversions() if c.document["name"] == "watched"]):
        pass
    backstage.finish(asked_for[0].id)
    done = waiting.result(60)
    shown = capsys.readouterr().err
    assert "upload" in shown
    assert f"{done.id}: pass" in shown
