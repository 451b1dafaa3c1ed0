"""What one project's or architecture's process says of a template is nothing to another's."""

import pytest

from app.database import templates
from app.database.projects import DEFAULT
from app.database.session import Database
from app.database.templates import Granted, Holder, Ready, Unsuitable
from app.domain.report import Certificate, Verdict

KEY = "ab" * 32
CERTIFICATE = Certificate(
    conversion_id="cnv_1", certified_at="2026-11-26T12:00:00Z", verdict=Verdict.passed, probes=1, worst_ratio=0.1
)
NET = "torchvision/resnet18"
OURS, THEIRS, OPERATORS = (Holder(f"cnv_{project}", 1, project, NET) for project in ("ours", "theirs", DEFAULT))
PLUGIN = Holder("cnv_plugin", 1, "ours", "plugin/net")

pytestmark = pytest.mark.anyio


async def build(database: Database, holder: Holder, sha256: str) -> None:
    async with database.transaction() as session:
        assert isinstance(await templates.find_or_claim(session, KEY, holder), Granted)
        await templates.publish(session, KEY, holder, object_sha256=sha256, bytes=1, certificate=CERTIFICATE)


async def told(database: Database, holder: Holder) -> object:
    """What a conversion is told; it takes no right that it is given."""
    async with database.transaction() as session:
        found = await templates.find_or_claim(session, KEY, holder)
        await templates.give_up(session, holder)
    return found.object_sha256 if isinstance(found, Ready) else type(found)


async def test_a_template_serves_its_own_project_and_architecture(database: Database) -> None:
    await build(database, PLUGIN, "forged")
    assert await told(database, OURS) is Granted
    await build(database, OURS, "honest")
    assert await told(database, OURS) == "honest"
    assert await told(database, PLUGIN) == "forged"
    assert await told(database, THEIRS) is Granted
    assert await told(database, OPERATORS) is Granted


async def test_the_operators_templates_serve_all_and_are_ruled_out_by_nobody_else(database: Database) -> None:
    await build(database, OPERATORS, "warm")
    assert await told(database, THEIRS) == "warm"
    async with database.transaction() as session:
        assert await templates.is_known(session, KEY, NET)
        assert not await templates.is_known(session, KEY, "plugin/net")
        await templates.rule_out(session, KEY, OURS, "forged")
    assert await told(database, OURS) is Unsuitable
    assert await told(database, THEIRS) == await told(database, OPERATORS) == "warm"
    async with database.transaction() as session:
        await templates.forget(session, KEY, THEIRS, "warm")
    assert await told(database, OPERATORS) is Granted
