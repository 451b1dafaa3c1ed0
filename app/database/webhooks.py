"""Webhooks and their messages. A message is written, and its delivery queued, in the transaction that it tells of."""

import json
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.database.entries import DELIVERIES, defer
from app.database.projects import owner_of_new
from app.database.sealing import Unreadable, seal, unseal
from app.database.tables import Conversion, ConversionFile, Delivery, Webhook
from app.domain.errors import NotFound, QuotaExceeded
from app.domain.identifiers import new_id
from app.domain.webhook import OF_STATE, NewWebhook, Secret, WebhookEvent, new_secret

MOST_PER_PROJECT = 100
"""Webhooks of a project beside those of single conversions."""
ATTEMPTS_KEPT = 50
SHOWN_ID = 100


async def create(session: AsyncSession, new: NewWebhook, conversion: Conversion | None = None) -> Webhook:
    """A webhook of the session's project, or of one conversion of it. Raises QuotaExceeded."""
    project = conversion.project_id if conversion else owner_of_new(session)
    if conversion is None:
        count = select(func.count(Webhook.id)).where(Webhook.project_id == project, Webhook.conversion_id.is_(None))
        if (await session.scalar(count) or 0) >= MOST_PER_PROJECT:
            raise QuotaExceeded(f"A project may have {MOST_PER_PROJECT} webhooks.", limit=MOST_PER_PROJECT)
    webhook = Webhook(
        id=new_id("whk"),
        project_id=project,
        conversion_id=conversion.id if conversion else None,
        name=new.name,
        url=new.url,
        events=[event.value for event in new.events],
        secrets=[Secret(secret=seal(session, new.secret)).model_dump(mode="json")],
    )
    session.add(webhook)
    await session.flush()
    await session.refresh(webhook)
    return webhook


async def find(session: AsyncSession, id: str, *, lock: bool = False) -> Webhook:
    """The webhook of that id; NotFound."""
    query = select(Webhook).where(Webhook.id == id)
    found = await session.scalar(query.with_for_update() if lock else query)
    if found is None:
        raise NotFound(f"There is no webhook {id[:SHOWN_ID]!r}.")
    return found


async def listed(
    session: AsyncSession, conversion_id: str | None, limit: int, before: str | None = None
) -> Sequence[Webhook]:
    """Newest first, those of the project or those of one conversion. The cursor is an id."""
    of_one = Webhook.conversion_id.is_(None) if conversion_id is None else Webhook.conversion_id == conversion_id
    query = select(Webhook).where(of_one).order_by(Webhook.id.desc()).limit(limit)
    return (await session.scalars(query if before is None else query.where(Webhook.id < before))).all()


async def remove(session: AsyncSession, id: str) -> None:
    """Delete a webhook and its messages. NotFound."""
    await session.delete(await find(session, id, lock=True))


async def rotate(session: AsyncSession, id: str, overlap: timedelta) -> tuple[Webhook, str]:
    """Give a webhook a new secret; for ``overlap`` messages are signed with the one before it too. NotFound."""
    webhook = await find(session, id, lock=True)
    secret, now = new_secret(), datetime.now(UTC)
    before = Secret.kept(webhook.secrets[0]).model_copy(update={"expires_at": now + overlap})
    webhook.secrets = [one.model_dump(mode="json") for one in (Secret(secret=seal(session, secret)), before)]
    return webhook, secret


def valid_secrets(webhook: Webhook) -> list[Secret]:
    """The secrets to sign a message with now, as they are kept, the newest first."""
    known = [Secret.kept(one) for one in webhook.secrets]
    now = datetime.now(UTC)
    return [one for one in known if one.expires_at is None or one.expires_at > now]


# --- messages ------------------------------------------------------------------------------------------------------


async def tell(
    session: AsyncSession, conversion: Conversion, event: WebhookEvent | None = None, *, only: str | None = None
) -> None:
    """Write a message on what happened to a conversion, by default on its state, for each webhook that is told of it.

    ``only``: for the webhook of that id.
    """
    event = event or OF_STATE[conversion.state]
    query = select(Webhook.id).where(
        Webhook.project_id == conversion.project_id,
        Webhook.conversion_id.is_(None) | (Webhook.conversion_id == conversion.id),
        Webhook.disabled_at.is_(None),
        Webhook.events.contains([event.value]),
    )
    receivers = (await session.scalars(query if only is None else query.where(Webhook.id == only))).all()
    if receivers:
        body = json.dumps(await _message(session, conversion, event))
        for webhook_id in receivers:
            await _add(session, webhook_id, event.value, body, conversion.id)


async def ping(session: AsyncSession, webhook_id: str) -> Delivery:
    """Write a message that tells nothing but that messages arrive. NotFound."""
    webhook = await find(session, webhook_id)
    body = json.dumps({"type": "ping", "timestamp": _now(), "data": {"webhook": webhook.id}})
    return await _add(session, webhook.id, "ping", body, None)


async def _add(session: AsyncSession, webhook_id: str, event: str, body: str, conversion_id: str | None) -> Delivery:
    delivery = Delivery(
        id=new_id("msg"),
        webhook_id=webhook_id,
        conversion_id=conversion_id,
        event=event,
        body=body,
        state="pending",
        tries=0,
        attempts=[],
    )
    session.add(delivery)
    await session.flush()
    await queue_again(session, delivery, timedelta())
    await session.refresh(delivery)
    return delivery


async def queue_again(session: AsyncSession, delivery: Delivery, after: timedelta) -> None:
    """Let a locked message be sent after that time; entries that it had before no longer count."""
    delivery.queue_job_id = await defer(session, DELIVERIES, after or None, delivery_id=delivery.id)
    delivery.next_try_at = datetime.now(UTC) + after
    delivery.state, delivery.finished_at = "pending", None
    await session.flush()


async def redeliver(session: AsyncSession, webhook_id: str, delivery_id: str) -> Delivery:
    """Send a message again, now, and with as many tries as a new one. NotFound."""
    webhook = await find(session, webhook_id)  # first: a message has no project but its webhook's
    delivery = await _delivery(session, delivery_id)
    if delivery is None or delivery.webhook_id != webhook.id:
        raise NotFound(f"There is no message {delivery_id[:SHOWN_ID]!r} for this webhook.")
    delivery.tries = 0
    await queue_again(session, delivery, timedelta())
    return delivery


@dataclass(frozen=True)
class Sending:
    """A message that is to be sent now, and to whom."""

    delivery: Delivery
    webhook: Webhook
    secrets: tuple[str, ...]
    """That it is signed with; none where they were sealed with another key."""


async def to_send(session: AsyncSession, delivery_id: str, queue_job_id: int) -> Sending | None:
    """The message that a queue entry stands for; None when that is no longer the message's own."""
    delivery = await _delivery(session, delivery_id)
    if delivery is None or delivery.queue_job_id != queue_job_id or delivery.state != "pending":
        return None
    webhook = await find(session, delivery.webhook_id)
    secrets: tuple[str, ...] = ()
    with suppress(Unreadable):
        secrets = tuple(unseal(session, known.secret) for known in valid_secrets(webhook))
    return Sending(delivery, webhook, secrets)


async def record(
    session: AsyncSession, sending: Sending, attempt: dict[str, Any], *, delivered: bool, again: timedelta | None
) -> None:
    """Note how an attempt ended; ``again``: after how long comes another one."""
    delivery = await _delivery(session, sending.delivery.id)
    if delivery is None or delivery.queue_job_id != sending.delivery.queue_job_id:
        return
    delivery.tries += 1
    delivery.attempts = [*delivery.attempts, attempt][-ATTEMPTS_KEPT:]
    if again is not None:
        await queue_again(session, delivery, again)
        return
    delivery.state = "delivered" if delivered else "failed"
    delivery.next_try_at, delivery.finished_at = None, datetime.now(UTC)


async def disable(session: AsyncSession, id: str) -> None:
    """Tell a webhook nothing more."""
    webhook = await find(session, id, lock=True)
    webhook.disabled_at = datetime.now(UTC)


async def deliveries(
    session: AsyncSession, webhook_id: str, states: Collection[str], limit: int, before: str | None
) -> Sequence[Delivery]:
    """Messages of a webhook, newest first. NotFound."""
    await find(session, webhook_id)
    query = select(Delivery).where(Delivery.webhook_id == webhook_id).order_by(Delivery.id.desc()).limit(limit)
    if states:
        query = query.where(Delivery.state.in_(states))
    return (await session.scalars(query if before is None else query.where(Delivery.id < before))).all()


async def _delivery(session: AsyncSession, id: str) -> Delivery | None:
    return await session.get(Delivery, id, with_for_update=True, populate_existing=True)


async def _message(session: AsyncSession, conversion: Conversion, event: WebhookEvent) -> dict[str, Any]:
    """What a receiver is told: enough to find the conversion again and to act on how it ended."""
    of_artifact = (ConversionFile.conversion_id == conversion.id) & (ConversionFile.role == "artifact")
    artifact = await session.scalar(select(ConversionFile).where(of_artifact))
    path = f"/v1/conversions/{conversion.id}"
    problem = conversion.problem
    return {
        "type": event.value,
        "timestamp": _now(),
        "data": {
            "id": conversion.id,
            "name": conversion.name,
            "labels": conversion.labels,
            "state": conversion.state.value,
            "attempt": conversion.attempt,
            "architecture": conversion.architecture,
            "target": conversion.target,
            "checkpoint": {"sha256": conversion.checkpoint_sha256, "filename": conversion.checkpoint_filename},
            "verdict": conversion.verdict,
            "error": problem and {member: problem.get(member) for member in ("code", "title", "detail", "stage")},
            "artifact": artifact and {m: getattr(artifact, m) for m in ("filename", "sha256", "bytes", "media_type")},
            "links": {"self": path, "artifact": f"{path}/artifact" if artifact else None},
        },
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
