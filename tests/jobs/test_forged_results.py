"""A conversion process that lies: whatever it says or leaves is a crash of its own conversion, and of nothing else."""

import asyncio
from pathlib import Path

import pytest

from app.database import conversions
from app.domain.conversion import State
from tests.jobs.forging import FORGERIES
from tests.jobs.service import Client, StartWorker

PREVENTED = ("hardlink", "results_exchanged")
"""Forgeries that the process cannot even bring about: the files that it sees are on mounts of their own."""

pytestmark = pytest.mark.anyio


def objects(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (directory / "objects" / "sha256").glob("*/*")}


async def test_no_forged_result_is_published(client: Client, start_worker: StartWorker) -> None:
    """All by one worker, which is to outlive them and to go on with honest work."""
    worker = start_worker(drain_timeout=0)
    honest = await client.ended(await client.submit("plain"))
    assert honest.state is State.succeeded
    before = objects(client.directory)
    ids = {name: await client.submit(f"forge:{name}") for name in FORGERIES}
    ended = {name: await client.ended(id) for name, id in ids.items()}
    codes = {name: (row.problem or {}).get("code") for name, row in ended.items()}
    assert {name: codes.pop(name) for name in PREVENTED} == dict.fromkeys(PREVENTED, "conversion_failed")
    assert set(codes.values()) == {"child_crashed"}
    assert {row.attempt for row in ended.values()} == {1}
    after = objects(client.directory)
    assert {name: after.get(name) for name in before} == before
    async with client.database.transaction() as session:
        assert not [file for id in ids.values() for file in await conversions.files(session, id)]
    assert await client.scalar("select count(*) from templates") == 0
    assert (await client.ended(await client.submit("plain"))).state is State.succeeded
    assert worker.poll() is None


async def test_what_a_process_says_of_a_problem_is_bounded_and_told_by_our_table(
    client: Client, start_worker: StartWorker
) -> None:
    start_worker()
    problem = (await client.ended(await client.submit("overstate"))).problem
    assert problem
    assert (problem["code"], problem["status"]) == ("key_mismatch", 422)
    assert problem["title"] == "The checkpoint does not fit the architecture"
    assert len(problem["detail"]) < 5_000
    assert "\0" not in problem["detail"]
    assert set(problem["extra"]) == {"missing_keys"}
    assert len(problem["extra"]["missing_keys"]) <= 50
    assert max(map(len, problem["extra"]["missing_keys"])) <= 1_000


async def test_of_a_report_full_of_findings_a_conversion_tells_a_part(
    client: Client, start_worker: StartWorker
) -> None:
    start_worker()
    ended = await client.ended(await client.submit("forge:findings_many"))
    assert ended.state is State.succeeded
    assert len(ended.findings) == 100
    assert {len(finding["detail"]) for finding in ended.findings} == {4_000}


async def test_a_flood_of_stages_is_not_a_flood_of_transactions(client: Client, start_worker: StartWorker) -> None:
    start_worker()
    async with asyncio.timeout(60):
        conversion = await client.ended(await client.submit("flood"))
    assert conversion.state is State.succeeded
    assert await client.scalar("select count(*) from events where type = 'progress'") < 300  # type: ignore[operator]
