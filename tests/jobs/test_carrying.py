"""Workers that carry, and workers that convert: each does its part, and what one died over another takes up."""

import asyncio
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from app.database.conversions import NewConversion, SourceReference
from app.domain.conversion import State
from app.jobs import queue
from app.targets.onnx.spec import OnnxOptions
from tests.jobs.service import TIMEOUT, Client, StartWorker
from tests.remotes.servers import https_server

pytestmark = pytest.mark.anyio
PATH = "/weights/net.pth"


async def test_a_file_is_fetched_by_another_worker_when_one_dies_and_converted_by_one_without_a_way_out(
    client: Client, start_worker: StartWorker
) -> None:
    with TemporaryDirectory() as directory, https_server(Path(directory)) as files:
        files.files[PATH], files.held[PATH] = b"weights of elsewhere", threading.Event()
        remotes = Path(directory) / "remotes.toml"
        remotes.write_text(
            f'[[remote]]\nprefix = "{files.url}/weights/"\ninternal = true\nca_file = "{files.ca_file}"\n'
        )
        carrying = {"worker_queues": '["transfers"]', "remotes_file": remotes}
        first = start_worker(**carrying)
        source = SourceReference(files.url + PATH)
        new = NewConversion("", "test/plain", OnnxOptions(), source=source)
        id = (await queue.submit(client.database, new)).conversion.id
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
