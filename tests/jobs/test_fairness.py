"""Whose conversion is next: equal parts of the machines, priorities within a project, and a bound on what waits."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest
from sqlalchemy import text

from app.database import conversions, limits, projects
from app.database.backlog import Backlog, oldest_seconds
from app.database.conversions import Ending, NewConversion
from app.database.session import Database
from app.database.tables import Conversion
from app.database.workers import register
from app.domain.conversion import State
from app.domain.errors import QueueFull
from app.domain.report import Verdict
from app.jobs import fairness, queue
from app.jobs.queue import CONVERSIONS, Taken
from app.storage.objects import StoredObject
from app.targets.onnx.spec import OnnxOptions

pytestmark = pytest.mark.anyio

SHA = "ab" * 32
NEW = NewConversion(SHA, "torchvision/resnet18", OnnxOptions())


@pytest.fixture
async def worker_id(database: Database) -> int:
    async with database.transaction() as session:
        return await register(session, name="here", room="room", supervisor=None)


async def project(database: Database, name: str, **told: float) -> Database:
    """The database as a new project sees it, which has a checkpoint."""
    async with database.transaction() as session:
        made = await projects.create(session, name, told)
    seen = database.of(made.id)
    await queue.register_checkpoint(seen, StoredObject(SHA, 10), "weights.pth", inspect=False)
    return seen


async def submit(seen: Database, number: int = 1, **told: object) -> list[Conversion]:
    return [(await queue.submit(seen, replace(NEW, **told))).conversion for _ in range(number)]  # type: ignore[arg-type]


async def take(database: Database, worker_id: int) -> Taken | None:
    async with database.transaction() as session:
        return await queue.take(session, CONVERSIONS, worker_id)


async def run(database: Database, worker_id: int, seconds: dict[str, float]) -> str | None:
    """Take the next conversion and end it, after as many seconds as its project's take; gives the project."""
    taken = await take(database, worker_id)
    if taken is None:
        return None
    async with database.transaction() as session:
        started = await conversions.start(session, taken.arguments["conversion_id"], taken.id, "here", worker_id)
        assert started
        await conversions.finish(session, started.id, started.attempt, Ending(State.succeeded, verdict=Verdict.passed))
        await queue.remove_entry(session, taken.id)
    async with database.transaction() as session:
        share = (await limits.of(session, started.project_id)).share or 1.0
        await fairness.charge(session, started.project_id, seconds.get(started.project_id, 1.0), share)
    return started.project_id


async def test_a_project_that_sends_little_does_not_wait_behind_one_that_sent_much(database, worker_id):
    much, little = await project(database, "much"), await project(database, "little")
    await submit(much, 20)
    await submit(little, 2)
    turns = [await run(database, worker_id, {}) for _ in range(4)]
    assert turns.count(little.project) == 2


async def test_who_needs_longer_gets_no_more_of_one_machine(database, worker_id):
    slow, quick = await project(database, "slow"), await project(database, "quick")
    await submit(slow, 10)
    await submit(quick, 60)
    seconds = {slow.project: 10.0, quick.project: 1.0}
    served = Counter()
    for _ in range(44):
        turn = await run(database, worker_id, seconds)
        served[turn] += seconds[turn]
    assert served[slow.project] == pytest.approx(served[quick.project], abs=10)


async def test_a_share_counts_as_so_many_projects(database, worker_id):
    large, small = await project(database, "large", share=3), await project(database, "small")
    await submit(large, 40)
    await submit(small, 40)
    turns = Counter([await run(database, worker_id, {}) for _ in range(40)])
    assert turns[large.project] == pytest.approx(30, abs=1)


async def test_who_holds_machines_yields_the_next_one(database, worker_id):
    """However little it was charged so far: what runs has not been counted yet."""
    first, second = await project(database, "first"), await project(database, "second")
    held = await submit(first, 5)
    taken = [await take(database, worker_id) for _ in range(3)]
    waiting = await submit(second, 2)
    following = [await take(database, worker_id) for _ in range(2)]
    ids = [one.arguments["conversion_id"] for one in (*taken, *following)]
    assert ids == [one.id for one in (*held[:3], *waiting)]


async def test_nobody_saves_up_by_waiting(database, worker_id):
    busy, other, late = [await project(database, name) for name in ("busy", "other", "late")]
    await submit(busy, 40)
    await submit(other, 40)
    for _ in range(40):
        await run(database, worker_id, {})
    await submit(late, 20)
    turns = Counter([await run(database, worker_id, {}) for _ in range(12)])
    assert turns[late.project] <= 5


async def test_a_priority_goes_before_within_its_project_only(database, worker_id):
    own, other = await project(database, "own"), await project(database, "other")
    low, middle, high = [(await submit(own, priority=value))[0] for value in (-5, 0, 7)]
    (unhurried,) = await submit(other)
    ids = [(await take(database, worker_id)).arguments["conversion_id"] for _ in range(4)]
    assert [id for id in ids if id != unhurried.id] == [high.id, middle.id, low.id]
    assert unhurried.id in ids[:2]


async def test_an_entry_is_taken_once_and_none_is_left(database, worker_id):
    seen = await project(database, "one")
    ids = {one.id for one in await submit(seen, 5)}
    taken = {(await take(database, worker_id)).arguments["conversion_id"] for _ in range(5)}
    assert taken == ids
    assert await take(database, worker_id) is None


async def test_a_full_queue_has_room_for_who_has_less_than_an_equal_part(database):
    greedy, modest = await project(database, "greedy"), await project(database, "modest")
    backlog = Backlog(10)
    await submit(greedy, 10, backlog=backlog)
    with pytest.raises(QueueFull):
        await submit(greedy, backlog=backlog)
    await submit(modest, 5, backlog=backlog)
    with pytest.raises(QueueFull):
        await submit(modest, backlog=backlog)


async def test_the_age_of_the_queue_is_that_of_its_oldest(database, worker_id):
    async with database.transaction() as session:
        assert await oldest_seconds(session) == 0
    seen = await project(database, "one")
    await submit(seen, 2)
    async with database.transaction() as session:
        await session.execute(text("update conversions set created_at = now() - interval '1 day'"))
        assert await oldest_seconds(session) == pytest.approx(86400, rel=0.01)


async def test_a_project_runs_no_more_than_it_may_however_many_workers_ask_at_once(database, worker_id):
    bounded, other = await project(database, "bounded", running=2), await project(database, "other")
    await submit(bounded, 5)
    await submit(other, 1)
    taken = await asyncio.gather(*(take(database, worker_id) for _ in range(6)))
    async with database.transaction() as session:
        ids = [one.arguments["conversion_id"] for one in taken if one]
        projects = Counter([(await conversions.find(session, id)).project_id for id in ids])
    assert projects == {bounded.project: 2, other.project: 1}
    assert await take(database, worker_id) is None
    async with database.transaction() as session:
        await queue.remove_entry(session, next(one.id for one in taken if one))
    assert await take(database, worker_id) is not None
