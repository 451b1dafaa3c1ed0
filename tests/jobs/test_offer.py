"""Workers of several versions, as in the middle of an upgrade: each takes what it can do, and leaves the rest."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from app.database import catalogs
from app.database.conversions import NewConversion
from app.database.session import Database
from app.database.workers import register
from app.domain.errors import InvalidOptions
from app.jobs import queue
from app.jobs.consumer import Postponed
from app.jobs.offer import Offer
from app.storage.objects import StoredObject
from app.targets.abilities import abilities
from app.targets.onnx.spec import OnnxOptions

SHA = "ab" * 32
LATER = "onnx.precision=int4"
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)

pytestmark = pytest.mark.anyio


async def offered(database: Database, *more: str) -> Offer:
    """This version's worker, beside one that can do ``more``."""
    own = catalogs.Described("own", (), abilities=tuple(abilities()))
    async with database.transaction() as session:
        await register(session, name="own", room="own", supervisor=None)
        await catalogs.publish(session, own, "own")
        await catalogs.publish(session, replace(own, digest="other", abilities=(*own.abilities, *more)), "other")
    offer = Offer()
    offer.change(own)
    await offer.renew(database, "own")
    return offer


async def test_what_only_a_later_version_can_do_waits_for_its_workers_and_holds_up_nothing(database: Database) -> None:
    offer = await offered(database, LATER)
    assert offer.lacking == (LATER,)
    await queue.register_checkpoint(database, StoredObject(SHA, 10), "weights.pth", inspect=False)
    new = NewConversion(SHA, "torchvision/resnet18", OnnxOptions())
    first, second = [(await queue.submit(database, new)).conversion for _ in range(2)]
    async with database.transaction() as session:
        needs = text("update conversions set needs = jsonb_build_array(cast(:later as text)) where id = :id")
        await session.execute(needs, {"later": LATER, "id": first.id})
        worker = await register(session, name="two", room="two", supervisor=None)
        taken = await queue.take(session, queue.CONVERSIONS, worker, offer.lacking)
        assert taken is not None
        assert taken.arguments["conversion_id"] == second.id
        assert await queue.take(session, queue.CONVERSIONS, worker, offer.lacking) is None
        assert await queue.take(session, queue.CONVERSIONS, worker) is not None


async def test_what_others_can_do_is_put_back_and_what_nobody_can_do_waits_for_a_while_and_ends(
    database: Database,
) -> None:
    offer = await offered(database, LATER)
    await offer.make_sure_of(database, ["onnx", "recipes"], LONG_AGO)
    with pytest.raises(Postponed):
        await offer.make_sure_of(database, ["onnx", LATER], LONG_AGO)
    with pytest.raises(Postponed):
        await offer.make_sure_of(database, ["unheard_of"], datetime.now(UTC))
    with pytest.raises(InvalidOptions, match="unheard_of"):
        await offer.make_sure_of(database, ["unheard_of"], LONG_AGO)


async def test_a_conversion_says_what_it_needs(database: Database) -> None:
    await queue.register_checkpoint(database, StoredObject(SHA, 10), "weights.pth", inspect=False)
    new = NewConversion(SHA, "torchvision/resnet18", OnnxOptions(precision="fp16"))
    assert (await queue.submit(database, new)).conversion.needs == ["onnx", "onnx.precision", "onnx.precision=fp16"]
