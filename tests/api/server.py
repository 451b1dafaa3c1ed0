"""The api on a real port, a real database and a real store. Conversions end as a test says, so torch is not needed."""

import asyncio
import hashlib
import io
import json
import socket
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import uvicorn

from app.api.server import server_config
from app.architectures.known import known_layouts, packed
from app.database import catalogs, checkpoints, conversions, layouts
from app.database.catalogs import Described
from app.database.conversions import Ending
from app.database.owned_store import OwnedStore
from app.database.session import Database
from app.domain.architecture import ArchitectureDescription, InputSpec, Signature
from app.domain.checkpoint import CheckpointInspection, TensorInfo
from app.domain.conversion import Stage, State
from app.domain.errors import Problem
from app.domain.layout import Layout
from app.domain.layout_file import dump
from app.domain.report import ConversionReport, ProducedFile, Verdict, WorstParity
from app.main import create_app
from app.settings import Settings
from app.storage.objects import ObjectStore
from app.storage.opening import open_store
from tests.delivery.reports import report


def description(name: str, family: str = "resnet") -> ArchitectureDescription:
    return ArchitectureDescription(
        name=name,
        family=family,
        library=name.split("/", maxsplit=1)[0],
        library_version="0.1",
        summary=f"{name}, an image classifier",
        options_schema={
            "type": "object",
            "properties": {"num_classes": {"type": "integer", "minimum": 1, "maximum": 100_000}},
            "additionalProperties": False,
        },
        signature=Signature(inputs=(InputSpec(name="input", shape=("batch", 3, 224, 224)),)),
    )


LACKED = 'pip install "recast-service[openvino]"'
ARCHITECTURES = (
    description("torchvision/resnet18"),
    description("torchvision/resnet50").without({"openvino": LACKED}),
    description("timm/vit_tiny_patch16_224", family="vit"),
)


def known_layouts_of(architecture: str) -> list[Layout]:
    """Those that the package brings."""
    return [
        file.layout(number)
        for file in known_layouts()
        for number, head in enumerate(file.heads)
        if head.architecture == architecture
    ]


def weights(content: bytes = b"weights") -> bytes:
    """A zip as torch.save makes one, as far as its first bytes tell."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("archive/data.pkl"), content)
    return buffer.getvalue()


@contextmanager
def serving(settings: Settings, database_url: str, host: str = "localhost") -> Iterator[str]:
    """Address of the api, served by uvicorn in a thread; ``host``: a name that it answers to."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(server_config(create_app(settings, database_url), settings, grace=10))
    thread = threading.Thread(target=lambda: server.run(sockets=[listener]), daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    httpx.get(f"{url}/healthz", timeout=30, headers={"Host": host})
    try:
        yield url
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        listener.close()
        assert not thread.is_alive()


@dataclass
class Backstage:
    """What workers do, done by a test: rows and objects of finished conversions, through the workers' own functions."""

    database_url: str
    settings: Settings

    def describe_architectures(self) -> None:
        self._with_database(lambda database, _: _publish(database))

    def know_layouts(self) -> None:
        """Keep the layouts of torchvision/resnet18 for the version that the catalog tells."""

        async def record(database: Database, _: ObjectStore) -> None:
            document = dump("torchvision", "0.1", known_layouts_of("torchvision/resnet18"))
            async with database.transaction() as session:
                await layouts.record(session, ("torchvision", "0.1"), packed(document))

        self._with_database(record)

    def shapes(self, architecture: str) -> dict[str, list[int]]:
        return {key: list(tensor.plain) for key, tensor in known_layouts_of(architecture)[0].tensors.items()}

    def inspect(self, sha256: str, found: CheckpointInspection | Problem) -> None:
        async def record(database: Database, _: ObjectStore) -> None:
            async with database.transaction() as session:
                await checkpoints.record_inspection(session, sha256, found)

        self._with_database(record)

    def start(self, conversion_id: str) -> int:
        """Run it as a worker would; gives the attempt."""

        async def begin(database: Database, _: ObjectStore) -> int:
            async with database.transaction() as session:
                row = await conversions.find(session, conversion_id)
                started = await conversions.start(session, conversion_id, row.queue_job_id or 0, "test")
                assert started is not None
                await conversions.advance(session, conversion_id, started.attempt, Stage.export, 0.4)
                return started.attempt

        return self._with_database(begin)

    def finish(
        self,
        conversion_id: str,
        *,
        state: State = State.succeeded,
        verdict: Verdict | None = Verdict.passed,
        problem: Problem | None = None,
        artifact: bytes | None = b"the artifact's bytes " * 100_000,
        finished_report: ConversionReport | None = None,
    ) -> None:
        attempt = self.start(conversion_id)

        async def end(database: Database, store: ObjectStore) -> None:
            files = () if artifact is None else await _publish_files(store, artifact, finished_report or report())
            parity = WorstParity(probe="nominal", output="output", error=1e-6, gate=1e-5, ratio=0.1)
            ending = Ending(
                state,
                problem=problem,
                verdict=verdict,
                parity=parity,
                timings={"export": 1.5, "verify": 0.5},
                files=tuple(files),
            )
            async with database.transaction() as session:
                await conversions.finish(session, conversion_id, attempt, ending)

        self._with_database(end)

    def publish(self, conversion_id: str, done: ConversionReport) -> None:
        """End it with what a worker's child told of the checkpoint and the module, and no files."""
        attempt = self.start(conversion_id)

        async def end(database: Database, _: ObjectStore) -> None:
            async with database.transaction() as session:
                ending = Ending(State.succeeded, verdict=done.verification.verdict)
                await conversions.finish(session, conversion_id, attempt, ending)
                project = (await conversions.find(session, conversion_id)).project_id
                await checkpoints.record_inspection(session, done.checkpoint_sha256, done.checkpoint, project)
                await checkpoints.record_parameters(session, done.checkpoint_sha256, done.parameters, project)

        self._with_database(end)

    def stored_objects(self) -> set[str]:
        async def listed(_: Database, store: ObjectStore) -> set[str]:
            return {sha256 async for sha256 in store.older_than(datetime.now(UTC) + timedelta(days=1))}

        found: set[str] = self._with_database(listed)
        return found

    def unfinished_uploads(self) -> list[str]:
        return [path.name for path in (self.settings.data_dir / "objects").glob("incoming/*")]

    def _with_database(self, work: Any) -> Any:
        async def run() -> Any:
            database = Database(self.database_url)
            try:
                store = open_store(self.settings.objects_location, self.settings.data_dir)
                return await work(database, OwnedStore(store, database))
            finally:
                await database.close()

        with ThreadPoolExecutor(1) as thread:  # the caller's may have a loop of its own, as with a browser
            return thread.submit(lambda: asyncio.run(run())).result()


async def _publish(database: Database) -> None:
    async with database.transaction() as session:
        await catalogs.publish(session, Described("digest", ARCHITECTURES))


async def _publish_files(store: ObjectStore, content: bytes, done: ConversionReport) -> list[ProducedFile]:
    async def put(role: str, filename: str, media_type: str, data: bytes) -> ProducedFile:
        async def chunks():
            yield data

        stored = await store.receive(chunks(), limit=1 << 30)
        return ProducedFile.model_validate(
            {
                "role": role,
                "filename": filename,
                "sha256": stored.sha256,
                "bytes": stored.bytes,
                "media_type": media_type,
            }
        )

    return [
        await put("artifact", "torchvision-resnet18.onnx", "application/onnx", content),
        await put("report", "report.json", "application/json", done.model_dump_json().encode()),
        await put("golden", "golden.npz", "application/octet-stream", b"golden" * 10),
        await put("selfcheck", "check.py", "text/x-python", b"print('checked')\n"),
    ]


INSPECTION = CheckpointInspection(
    format="torch-zip",
    bytes=1000,
    nesting=("model",),
    candidates=("model",),
    tensors=(TensorInfo(name="fc.weight", shape=(10, 4), dtype="float32", bytes=160),),
    parameter_count=40,
    tensor_bytes=160,
    dtypes={"float32": 1},
)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def submit(client: httpx.Client, content: bytes | None = None, **members: Any) -> httpx.Response:
    """Upload as a form, without waiting; weights of its own unless told, so that no other test's result answers."""
    fields = {"architecture": "torchvision/resnet18", "target": "onnx", **members}
    data = {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}
    return client.post("/v1/conversions", data=data, files={"file": ("weights.pth", content or weights(uuid4().bytes))})
