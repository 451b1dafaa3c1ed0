"""Workers that carry, and workers that convert: each does its part, and what one died over another takes up."""

import asyncio
import re
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from app.database.conversions import NewConversion, SourceReference
from app.domain.conversion import State
from app.domain.publication import Publication
from app.jobs import queue
from app.targets.onnx.spec import OnnxOptions
from tests.jobs.service import TIMEOUT, Client, StartWorker
from tests.remotes.servers import KEY, SECRET, FileServer, https_server, s3_server

pytestmark = pytest.mark.anyio
PATH = "/weights/net.pth"


def granted(files: FileServer, directory: Path) -> Path:
    """A remotes file that lets workers read from that server."""
    remotes = directory / "remotes.toml"
    remotes.write_text(f'[[remote]]\nprefix = "{files.url}/weights/"\ninternal = true\nca_file = "{files.ca_file}"\n')
    return remotes


async def submit_of_elsewhere(client: Client, files: FileServer) -> str:
    new = NewConversion("", "test/plain", OnnxOptions(), source=SourceReference(files.url + PATH))
    return (await queue.submit(client.database, new)).conversion.id


async def test_a_file_that_is_to_be_fetched_waits_for_the_store_however_long_it_is_away(
    client: Client, start_worker: StartWorker, tmp_path: Path
) -> None:
    with TemporaryDirectory() as directory, https_server(Path(directory)) as files:
        files.files[PATH] = b"weights of elsewhere"
        worker = start_worker(remotes_file=granted(files, Path(directory)))
        assert (await client.ended(await client.submit("plain"))).state is State.succeeded
        (tmp_path / "objects").rename(tmp_path / "away")
        id = await submit_of_elsewhere(client, files)
        async with asyncio.timeout(TIMEOUT):
            while await client.scalar(f"select waiting_for from conversions where id = '{id}'") != "store":
                await asyncio.sleep(0.05)
        asked = len(files.asked)
        (tmp_path / "away").rename(tmp_path / "objects")
        conversion = await client.ended(id)
        assert (conversion.state, conversion.attempt, conversion.waiting_for) == (State.succeeded, 1, None)
        assert len(files.asked) == asked + 1
        assert worker.poll() is None


async def test_a_publication_waits_for_the_store_however_long_it_is_away(
    client: Client, start_worker: StartWorker, tmp_path: Path
) -> None:
    with TemporaryDirectory() as directory, s3_server(Path(directory) / "s3") as endpoint:
        remotes = Path(directory) / "remotes.toml"
        remotes.write_text(
            f'[[remote]]\nprefix = "s3://models/"\nallow = ["publish"]\nendpoint = "{endpoint}"\ninternal = true\n'
            f'credentials = {{ access_key_id = "{KEY}", secret_access_key = "{SECRET}" }}\n'
        )
        start_worker(remotes_file=remotes)
        id = await client.submit("plain")
        assert (await client.ended(id)).state is State.succeeded
        (tmp_path / "objects").rename(tmp_path / "away")
        await queue.publish(client.database, id, [Publication(uri="s3://models/triton/", name="net")])
        tries = f"select publications -> 0 ->> 'tries' from conversions where id = '{id}'"
        async with asyncio.timeout(TIMEOUT):
            while len(re.findall(f"waiting .*{id}.*part=store", (tmp_path / "worker.log").read_text())) < 4:
                await asyncio.sleep(0.05)
        assert await client.scalar(tries) == "0"
        (tmp_path / "away").rename(tmp_path / "objects")
        state = f"select publications -> 0 ->> 'state' from conversions where id = '{id}'"
        async with asyncio.timeout(TIMEOUT):
            while await client.scalar(state) != "published":
                await asyncio.sleep(0.05)
        assert await client.scalar(tries) == "1"


async def test_a_file_is_fetched_by_another_worker_when_one_dies_and_converted_by_one_without_a_way_out(
    client: Client, start_worker: StartWorker
) -> None:
    with TemporaryDirectory() as directory, https_server(Path(directory)) as files:
        files.files[PATH], files.held[PATH] = b"weights of elsewhere", threading.Event()
        carrying = {"worker_queues": '["transfers"]', "remotes_file": granted(files, Path(directory))}
        first = start_worker(**carrying)
        id = await submit_of_elsewhere(client, files)
        async with asyncio.timeout(TIMEOUT):
            while not files.asked:
                await asyncio.sleep(0.05)
        first.kill()
        first.wait()
        files.held.pop(PATH).set()
        start_worker(**carrying)
        async with asyncio.timeout(TIMEOUT):
            while not await client.scalar(f"select checkpoint_sha256 <> '' from conversions where id = '{id}'"):
                await asyncio.sleep(0.05)
        assert await client.scalar(f"select state from conversions where id = '{id}'") == State.queued
        start_worker(worker_queues='["conversions"]')
        conversion = await client.ended(id)
        assert (conversion.state, conversion.attempt, conversion.workers_lost) == (State.succeeded, 1, 0)
        assert len(files.asked) == 2
