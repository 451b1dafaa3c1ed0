"""Admission: what does not fit waits, in order, what leaves makes room, and what never could fit is refused."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from app.database.tables import Checkpoint, CheckpointOwner, Conversion
from app.domain.errors import MemoryEstimateExceeded
from app.jobs.admission import Admission, default_budget, estimate
from app.jobs.running import loaded_bytes, sample_elements

pytestmark = pytest.mark.anyio


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Job:
    """A job that holds what it was admitted with until it is told to end."""

    def __init__(self, admission: Admission, wanted: int) -> None:
        self.running = False
        self._end = asyncio.Event()
        self.task = asyncio.create_task(self._run(admission, wanted))

    async def _run(self, admission: Admission, wanted: int) -> None:
        async with admission.admit(wanted):
            self.running = True
            await self._end.wait()
        self.running = False

    async def end(self) -> None:
        self._end.set()
        await self.task
        await settle()


async def test_jobs_run_together_while_they_fit() -> None:
    admission = Admission(100)
    jobs = [Job(admission, wanted) for wanted in (60, 40, 10)]
    await settle()
    assert [job.running for job in jobs] == [True, True, False]
    await jobs[0].end()
    assert jobs[2].running
    await jobs[1].end()
    await jobs[2].end()


async def test_a_large_job_is_not_overtaken() -> None:
    admission = Admission(100)
    first, large, small = Job(admission, 50), Job(admission, 90), Job(admission, 10)
    await settle()
    assert (first.running, large.running, small.running) == (True, False, False)
    await first.end()
    assert (large.running, small.running) == (True, True)
    await large.end()
    await small.end()


def test_what_could_never_fit_is_refused_with_the_arithmetic() -> None:
    admission = Admission(estimate(100))
    assert admission.wanted_for(100) == estimate(100)
    with pytest.raises(MemoryEstimateExceeded) as refused:
        admission.wanted_for(101)
    assert refused.value.status == 413
    for number in (101, estimate(101), estimate(100)):
        assert f"{number:,}" in refused.value.detail


def test_a_small_job_is_admitted_with_its_share() -> None:
    admission = Admission(10 * estimate(0), at_once=2)
    assert admission.wanted_for(100) == 5 * estimate(0)
    assert admission.wanted_for(estimate(0) * 2) > 5 * estimate(0)


def test_a_large_example_input_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(MemoryEstimateExceeded) as refused:
        Admission(64 << 30).wanted_for(100, 10**12)
    for number in (10**12, estimate(100, 10**12)):
        assert f"{number:,}" in refused.value.detail


async def test_a_job_that_is_cancelled_in_line_gives_up_its_place() -> None:
    admission = Admission(100)
    first, waiting, last = Job(admission, 100), Job(admission, 100), Job(admission, 100)
    await settle()
    waiting.task.cancel()
    await settle()
    await first.end()
    assert last.running
    await last.end()


async def test_a_job_that_is_cancelled_as_its_turn_comes_leaves_room() -> None:
    admission = Admission(100)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(admission.admit(100))
        waiting = Job(admission, 100)
        await settle()
    waiting.task.cancel()
    await settle()
    last = Job(admission, 100)
    await settle()
    assert last.running
    await last.end()


def test_larger_checkpoints_are_thought_to_need_more() -> None:
    assert estimate(0) < estimate(100 << 20) < estimate(1 << 30)
    assert default_budget() > estimate(0)


def test_a_checkpoint_is_admitted_by_what_is_loaded_of_it() -> None:
    """Most of a training run's file may be optimizer state; what part a client chose is not known before it is read."""
    file = Checkpoint(sha256="ab" * 32, bytes=3_000)
    read, unread = CheckpointOwner(file=file, inspection={"tensor_bytes": 1_000}), CheckpointOwner(file=file)
    assert loaded_bytes(read, Conversion(options={"checkpoint_key": "auto"})) == 1_000
    assert loaded_bytes(read, Conversion(options={"checkpoint_key": "ema"})) == 3_000
    assert loaded_bytes(unread, Conversion(options={})) == 3_000
    named = CheckpointOwner(file=file, inspection={"tensor_bytes": 1_000, "nesting": ["state", "ema"]})
    assert loaded_bytes(named, Conversion(options={"checkpoint_key": "state.ema"})) == 1_000
    assert loaded_bytes(named, Conversion(options={"checkpoint_key": "state.model"})) == 3_000


def test_the_example_inputs_that_were_asked_for_are_counted() -> None:
    shapes = {"x": [2, 3, 6000, 6000], "mask": [2, 6000]}
    assert sample_elements(Conversion(options={"example_shapes": shapes})) == 216_000_000 + 12_000
    assert sample_elements(Conversion(options={"example_shapes": None})) == 0
