"""Who counts as dead: whose signs of life stop while another looks, whatever the database's clock says."""

import signal
from datetime import UTC, datetime, timedelta

import pytest

from app.domain.conversion import State
from app.jobs.rescue import Silence
from tests.jobs.service import Client, StartWorker

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LOST_AFTER = 15.0
LOOKS = 5.0


def sign(number: int) -> datetime:
    return NOON + timedelta(seconds=3 * number)


def heard_of(silence: Silence, signs: list[int], *, since: float = 1000.0) -> list[bool]:
    """Whether a worker counts as dead at each look, whose newest sign of life is then the one of that number."""
    return [bool(silence.heard({1: sign(n)}, since + LOOKS * look)) for look, n in enumerate(signs)]


def test_who_gives_no_sign_of_life_for_long_is_dead() -> None:
    assert heard_of(Silence(LOST_AFTER), [0, 1, 1, 1, 1]) == [False, False, False, False, True]


def test_whose_signs_go_on_lives_however_the_clock_is_set() -> None:
    assert not any(heard_of(Silence(LOST_AFTER), [0, 2, 9000, 3, -9000, 5, 6, 7]))


def test_one_long_pause_of_who_looks_is_no_silence_of_others() -> None:
    silence = Silence(LOST_AFTER)
    assert not any(heard_of(silence, [0, 1]))
    assert not any(heard_of(silence, [1, 2], since=99_000.0))


def test_after_an_outage_everybody_has_time_to_give_a_sign() -> None:
    silence = Silence(LOST_AFTER)
    assert not any(heard_of(silence, [0, 0, 0]))
    silence.not_heard()
    assert heard_of(silence, [0, 0, 0, 0], since=1060.0) == [False, False, False, True]


async def set_clock(client: Client, by: str) -> None:
    """What workers say of themselves is late or early by so much from now on, as where the clock has been set since."""
    shift = f"begin new.seen_at = new.seen_at + interval '{by}'; return new; end"
    await client.execute(
        f"create function shift() returns trigger language plpgsql as $${shift}$$",
        "create trigger shift before insert or update on workers for each row execute function shift()",
    )


@pytest.mark.anyio
@pytest.mark.slow
async def test_living_workers_keep_their_work_when_the_clock_is_set_forward(
    client: Client, start_worker: StartWorker
) -> None:
    await set_clock(client, "-1 hour")
    for _ in range(2):
        start_worker()
    id = await client.submit("sleep:6")
    conversion = await client.ended(id)
    assert (conversion.state, conversion.attempt, conversion.workers_lost) == (State.succeeded, 1, 0)


@pytest.mark.anyio
@pytest.mark.slow
async def test_a_silent_worker_loses_its_work_although_the_clock_was_set_back(
    client: Client, start_worker: StartWorker
) -> None:
    await set_clock(client, "1 hour")
    silent = start_worker()
    id = await client.submit("sleep:4")
    await client.started(id)
    silent.send_signal(signal.SIGSTOP)
    start_worker()
    conversion = await client.ended(id)
    assert (conversion.state, conversion.attempt) == (State.succeeded, 2)
