"""Templates as rows: who builds one, what was built, and which keys no template can serve.

One conversion builds a key at a time. Its right needs no heartbeat: it ends with the conversion's attempt.

What a conversion's process says of a template counts for its own project and architecture alone: whose code it runs may
fill in what it likes there, and no other project learns what was converted. Templates of the project `default`, which
workers warm and operators use, serve the others too.
"""

import hashlib
from dataclasses import dataclass

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.database.projects import DEFAULT
from app.database.tables import Conversion, Template
from app.domain.conversion import State
from app.domain.report import Certificate


@dataclass(frozen=True)
class Holder:
    """The attempt of a conversion on whose behalf something is asked or written."""

    conversion_id: str
    attempt: int
    project: str
    architecture: str

    def place(self, key: str) -> str:
        """Where a template of that key is kept for this conversion."""
        return place(key, self.project, self.architecture)


def place(key: str, project: str, architecture: str) -> str:
    return hashlib.sha256("\n".join((project, architecture, key)).encode()).hexdigest()


@dataclass(frozen=True)
class Ready:
    """A template that may be used."""

    object_sha256: str
    certificate: Certificate


@dataclass(frozen=True)
class Unsuitable:
    """No template can serve this key."""

    reason: str


@dataclass(frozen=True)
class Granted:
    """Nothing is known of the key, and the asker alone may build it until its attempt ends."""


@dataclass(frozen=True)
class BuiltElsewhere:
    """That conversion is building it; ask again when it changes."""

    conversion_id: str


async def is_known(session: AsyncSession, key: str, architecture: str) -> bool:
    """Whether a key needs no building for all projects: a template is ready, being built, or known to be impossible."""
    return await session.get(Template, place(key, DEFAULT, architecture)) is not None


async def find_or_claim(
    session: AsyncSession, key: str, asker: Holder
) -> Ready | Unsuitable | Granted | BuiltElsewhere:
    """What is known of a key; if nothing, the right to build it goes to the asker or stays with who has it."""
    own = asker.place(key)
    await _lock(session, own)
    row = await session.get(Template, own)
    if row is None:
        shared = await session.get(Template, place(key, DEFAULT, asker.architecture))
        row = shared if shared is not None and shared.state == "ready" else None
    if row is None:
        session.add(Template(key=own, state="building", builder=asker.conversion_id, builder_attempt=asker.attempt))
        return Granted()
    if row.state == "ready":
        row.used_at = func.now()
        assert row.object_sha256
        return Ready(row.object_sha256, Certificate.kept(row.certificate))
    if row.state == "unsuitable":
        return Unsuitable(row.reason or "")
    if row.builder != asker.conversion_id and await _runs(session, row.builder, row.builder_attempt):
        return BuiltElsewhere(row.builder)
    row.builder, row.builder_attempt = asker.conversion_id, asker.attempt
    return Granted()


async def publish(
    session: AsyncSession, key: str, builder: Holder, *, object_sha256: str, bytes: int, certificate: Certificate
) -> None:
    """Make a built template available, if the right to build it is still the builder's."""
    row = await _held(session, builder.place(key), builder)
    if row is not None:
        row.state = "ready"
        row.object_sha256 = object_sha256
        row.bytes = bytes
        row.certificate = certificate.model_dump(mode="json")


async def rule_out(session: AsyncSession, key: str, holder: Holder, reason: str) -> None:
    """Remember that no template can serve a key: one could not be built, or was found unfit."""
    own = holder.place(key)
    await _lock(session, own)
    row = await session.get(Template, own)
    if row is None:
        row = Template(key=own, builder=holder.conversion_id, builder_attempt=holder.attempt)
        session.add(row)
    row.state = "unsuitable"
    row.reason = reason
    row.object_sha256 = row.bytes = row.certificate = None


async def forget(session: AsyncSession, key: str, asker: Holder, object_sha256: str) -> None:
    """Drop a template whose bytes are gone, so that it is built again."""
    places = (asker.place(key), place(key, DEFAULT, asker.architecture))
    await session.execute(delete(Template).where(Template.key.in_(places), Template.object_sha256 == object_sha256))


async def give_up(session: AsyncSession, builder: Holder) -> None:
    """End every right to build that an ending attempt still holds."""
    await session.execute(
        delete(Template).where(
            Template.state == "building",
            Template.builder == builder.conversion_id,
            Template.builder_attempt == builder.attempt,
        )
    )


async def _held(session: AsyncSession, key: str, builder: Holder) -> Template | None:
    await _lock(session, key)
    row = await session.get(Template, key)
    if row is None or row.state != "building":
        return None
    return row if (row.builder, row.builder_attempt) == (builder.conversion_id, builder.attempt) else None


async def _runs(session: AsyncSession, conversion_id: str, attempt: int) -> bool:
    conversion = await session.get(Conversion, conversion_id)
    return conversion is not None and conversion.state is State.running and conversion.attempt == attempt


async def _lock(session: AsyncSession, key: str) -> None:
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"template {key}", 0))))
