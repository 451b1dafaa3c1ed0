"""Groups: several conversions that one request asked for, as one thing that can be watched and canceled."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import conversions, idempotency
from app.database.conversions import Found, NewConversion
from app.database.idempotency import Idempotency
from app.database.projects import owner_of_new
from app.database.tables import Conversion, Group, GroupMember, IdempotencyKey
from app.domain.errors import IdempotencyConflict, NotFound
from app.domain.identifiers import new_id

MOST_MEMBERS = 100
SHOWN_ID = 100


@dataclass(frozen=True)
class NewGroup:
    """A validated request for several conversions."""

    members: tuple[NewConversion, ...]
    name: str | None = None
    labels: dict[str, str] = field(default_factory=dict)


async def earlier(session: AsyncSession, key: Idempotency) -> Group | None:
    """What an earlier request with this key led to. Raises IdempotencyConflict when that was another request."""
    stored = await idempotency.locked(session, key)
    known = await session.scalar(select(Group).where(Group.idempotency_key == stored))
    other = known is not None and known.request_digest != key.request_digest
    if other or await session.get(IdempotencyKey, stored) is not None:
        raise IdempotencyConflict("The Idempotency-Key belongs to a request with another body.")
    return known


async def insert(session: AsyncSession, new: NewGroup, members: Sequence[Conversion], key: Idempotency | None) -> Group:
    group = Group(
        id=new_id("grp"),
        project_id=owner_of_new(session),
        name=new.name,
        labels=new.labels,
        idempotency_key=key and await idempotency.locked(session, key),
        request_digest=key and key.request_digest,
    )
    session.add(group)
    await session.flush()
    for position, member in enumerate(members):
        session.add(GroupMember(group_id=group.id, position=position, conversion_id=member.id))
    await session.flush()
    await session.refresh(group)
    return group


async def find(session: AsyncSession, id: str) -> Group:
    """The group of that id; NotFound."""
    found = await session.scalar(select(Group).where(Group.id == id))
    if found is None:
        raise NotFound(f"There is no group {id[:SHOWN_ID]!r}.")
    return found


async def newest(session: AsyncSession, limit: int, before: str | None) -> Sequence[Group]:
    """Up to ``limit`` groups, newest first; ``before``: only ids below this one."""
    query = select(Group).order_by(Group.id.desc()).limit(limit)
    return (await session.scalars(query if before is None else query.where(Group.id < before))).all()


async def members(session: AsyncSession, id: str) -> Sequence[Conversion]:
    """The conversions of a group in the order of the request, those deleted left out. NotFound."""
    await find(session, id)
    query = select(Conversion).join(GroupMember, GroupMember.conversion_id == Conversion.id)
    return (await session.scalars(query.where(GroupMember.group_id == id).order_by(GroupMember.position))).all()


async def members_with_files(session: AsyncSession, id: str) -> Sequence[Found]:
    """As ``members``, with their files. NotFound."""
    return [await conversions.find_with_files(session, member.id) for member in await members(session, id)]


async def remove(session: AsyncSession, id: str) -> None:
    """Delete a group; its conversions stay. NotFound."""
    await session.delete(await find(session, id))
