"""The catalogs of architectures that workers' children made; the api reads them, because only torch can make them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from pydantic import TypeAdapter
from sqlalchemy import Text, cast, func, literal, select, text, update
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import workers
from app.database.tables import Catalog, Worker
from app.domain.architecture import ArchitectureDescription, BrokenPlugin, Signature

_entries = TypeAdapter(tuple[ArchitectureDescription, ...])

OFFERED_FOR = timedelta(minutes=10)
"""How long what a worker offered is left to workers like it, after the last sign of one: they may be restarting."""
_SIGNATURE = text("""
    select entry -> 'signature' from catalogs, jsonb_array_elements(entries) entry
    where entry ->> 'name' = :name order by seen_at desc limit 1
""")
_OFFERED_BY_OTHERS = text("""
    with others as (select entries, abilities from catalogs where digest <> :own and seen_at > now() - :offered_for)
    select entry ->> 'name' from others, jsonb_array_elements(entries) entry
    union select jsonb_array_elements_text(abilities) from others
""")
_LACKED_BY_ONE = text("""
    select exists (
        select from catalogs where seen_at > now() - :offered_for
        and not jsonb_path_exists(entries, '$[*].name ? (@ == $name)', jsonb_build_object('name', cast(:name as text)))
    )
""")


@dataclass(frozen=True)
class Described:
    """What a worker knows of its architectures."""

    digest: str
    entries: Sequence[ArchitectureDescription]
    broken: Sequence[BrokenPlugin] = ()
    pending: Sequence[str] = ()
    """Plug-ins that have not been described yet."""
    late: Sequence[str] = ()
    """Those of which nobody knows how much longer that takes; what does not need them goes on."""
    abilities: Sequence[str] = ()
    """Names of what the worker can do beside (targets/abilities.py)."""


def as_json(entries: Sequence[ArchitectureDescription]) -> bytes:
    """The entries as they are stored, megabytes of them."""
    return _entries.dump_json(tuple(entries))


async def publish(session: AsyncSession, described: Described, room: str | None = None) -> None:
    """Make this what the worker of that work directory offers. What was stored once is not sent again."""
    if not await _see(session, described.digest):
        statement = insert(Catalog).values(
            digest=described.digest,
            entries=cast(literal(as_json(described.entries).decode(), Text), JSONB),
            plugins={entry.name: entry.plugin for entry in described.entries if entry.plugin is not None},
            broken=[plugin.model_dump(mode="json") for plugin in described.broken],
            pending=list(described.pending),
            late=list(described.late),
            abilities=list(described.abilities),
        )
        seen = {"seen_at": func.clock_timestamp()}
        await session.execute(statement.on_conflict_do_update(index_elements=["digest"], set_=seen))
    await _assign(session, described.digest, room)


async def offer(session: AsyncSession, digest: str, room: str | None) -> None:
    """Record that the worker of that work directory still offers a catalog."""
    await _see(session, digest)
    await _assign(session, digest, room)


async def _see(session: AsyncSession, digest: str) -> bool:
    """Record that a catalog is offered; False where none of that digest is stored."""
    seen = update(Catalog).where(Catalog.digest == digest).values(seen_at=func.clock_timestamp())
    return await session.scalar(seen.returning(Catalog.digest)) is not None


async def _assign(session: AsyncSession, digest: str, room: str | None) -> None:
    await session.execute(update(Worker).where(Worker.room == room).values(catalog=digest))


async def withdraw(session: AsyncSession, room: str) -> None:
    """Let the worker of that work directory offer nothing."""
    await session.execute(update(Worker).where(Worker.room == room).values(catalog=None))


async def current_digests(session: AsyncSession, lost_after: float) -> tuple[str, ...]:
    """What the workers that live offer, the one that began last first; without one, what was offered last.

    Empty before any worker has described its architectures. Cheap: ask it per request.
    """
    began = (
        select(func.max(Worker.started_at))
        .where(Worker.catalog == Catalog.digest, workers.lives(lost_after))
        .scalar_subquery()
    )
    query = select(Catalog.digest, began).order_by(began.desc().nulls_last(), Catalog.seen_at.desc(), Catalog.digest)
    known = (await session.execute(query)).all()
    return tuple(digest for digest, offered in known if offered) or tuple(digest for digest, _ in known[:1])


async def find(session: AsyncSession, digest: str) -> Described | None:
    """A catalog, its architectures in the registry's order."""
    columns = cast(Catalog.entries, Text), Catalog.broken, Catalog.pending, Catalog.late, Catalog.abilities
    row = (await session.execute(select(*columns).where(Catalog.digest == digest))).one_or_none()
    if row is None:
        return None
    entries, broken, pending, late, abilities = row
    return Described(
        digest=digest,
        entries=_entries.validate_json(entries, extra="ignore"),
        broken=tuple(BrokenPlugin.kept(plugin) for plugin in broken),
        pending=tuple(pending),
        late=tuple(late),
        abilities=tuple(abilities),
    )


async def signature_of(session: AsyncSession, name: str) -> Signature | None:
    """The signature of an architecture, as it was described last."""
    found = await session.scalar(_SIGNATURE, {"name": name})
    return None if found is None else Signature.model_validate(found, extra="ignore")


async def offered_by_others(session: AsyncSession, own: str) -> set[str]:
    """Names of all architectures and abilities in other catalogs than ``own`` that were offered lately."""
    return set(await session.scalars(_OFFERED_BY_OTHERS, {"own": own, "offered_for": OFFERED_FOR}))


async def is_lacked_by_one(session: AsyncSession, name: str) -> bool:
    """Whether a catalog that was offered lately has no architecture of that name."""
    return bool(await session.scalar(_LACKED_BY_ONE, {"name": name, "offered_for": OFFERED_FOR}))


async def is_of_this_start(session: AsyncSession, supervisor: str | None, lost_after: float) -> bool:
    """Whether a worker that lives has described its architectures; under `recast serve` (``supervisor``), one of that
    run, else, while no worker lives, the last catalog is the one."""
    living = select(func.count(Worker.id), func.count(Worker.catalog)).where(workers.lives(lost_after))
    if supervisor is not None:
        living = living.where(Worker.supervisor == supervisor)
    count, described = (await session.execute(living)).one()
    return described > 0 or (count == 0 and supervisor is None)
