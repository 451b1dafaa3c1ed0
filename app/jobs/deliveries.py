"""Delivering webhook messages (https://www.standardwebhooks.com): signed, tried again for a day, by every worker."""

import asyncio
import random
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import httpx2
import structlog
from standardwebhooks import Webhook as Signer

from app.database import webhooks
from app.database.webhooks import Sending
from app.domain.errors import AddressNotAllowed
from app.jobs import metrics
from app.jobs.consumer import Job
from app.jobs.patience import patiently
from app.jobs.tools import Tools

log = structlog.get_logger(__name__)

PAUSES = tuple(timedelta(seconds=seconds) for seconds in (5, 30, 120, 600, 1800, 3600, 7200, 14400, 21600, 36000))
"""Before each further attempt, about 26 hours in all: those that Standard Webhooks proposes, with more at first."""
JITTER = 0.1
"""Part of a pause by which it may be longer, so that a receiver that comes back is not run over."""
PATIENCE = 20.0
"""Seconds that a receiver has to answer."""
GONE = 410
USER_AGENT = "Recast-Webhooks/1"


async def deliver(tools: Tools, job: Job) -> None:
    """Send the message that a queue entry stands for, once; nothing where it is no longer the message's entry."""
    sending = await patiently(partial(_find, tools, job))
    if sending is None:
        return
    attempt = await _attempt(tools, sending)
    status = attempt["status"]
    delivered = status is not None and 200 <= status < 300
    tries = sending.delivery.tries
    again = None if delivered or status == GONE or tries >= len(PAUSES) else _pause(tries)
    await patiently(partial(_record, tools, sending, attempt, delivered, again))
    metrics.webhook_attempts.labels("delivered" if delivered else "failed" if again is None else "retried").inc()
    log.info(
        "webhook_attempt",
        message=sending.delivery.id,
        webhook=sending.webhook.id,
        conversion=sending.delivery.conversion_id,
        status=status,
        error=attempt["error"],
        again_in=again and again.total_seconds(),
    )


async def delivery_stumbled(tools: Tools, job: Job) -> None:
    """Leave a message that nobody foresaw to its next attempt."""
    sending = await _find(tools, job)
    if sending is not None:
        attempt = _told(time.monotonic(), datetime.now(UTC), error="internal")
        tries = sending.delivery.tries
        again = None if tries >= len(PAUSES) else _pause(tries)
        await _record(tools, sending, attempt, False, again)


async def _find(tools: Tools, job: Job) -> Sending | None:
    async with tools.database.transaction() as session:
        return await webhooks.to_send(session, job.arguments["delivery_id"], job.entry)


async def _record(
    tools: Tools, sending: Sending, attempt: dict[str, Any], delivered: bool, again: timedelta | None
) -> None:
    async with tools.database.transaction() as session:
        await webhooks.record(session, sending, attempt, delivered=delivered, again=again)
        if attempt["status"] == GONE:
            await webhooks.disable(session, sending.webhook.id)


async def _attempt(tools: Tools, sending: Sending) -> dict[str, Any]:
    """Send the message once. Of the answer only its status is taken: a receiver's words are nobody's to read here."""
    began, now = time.monotonic(), datetime.now(UTC)
    body = sending.delivery.body
    if not sending.secrets:
        return _told(began, now, error="secret_unreadable")
    try:
        async with asyncio.timeout(PATIENCE), tools.egress.client(timeout=PATIENCE) as client:
            request = client.build_request("POST", sending.webhook.url, content=body, headers=_headers(sending, now))
            answer = await client.send(request, stream=True)
            await answer.aclose()
    except AddressNotAllowed:
        return _told(began, now, error="address_not_allowed")
    except (TimeoutError, httpx2.TimeoutException):
        return _told(began, now, error="timeout")
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        return _told(began, now, error=_kind(error))
    return _told(began, now, status=answer.status_code)


def _headers(sending: Sending, now: datetime) -> dict[str, str]:
    delivery = sending.delivery
    signatures = [Signer(secret).sign(delivery.id, now, delivery.body) for secret in sending.secrets]
    return {
        "content-type": "application/json",
        "user-agent": USER_AGENT,
        "webhook-id": delivery.id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def _told(began: float, at: datetime, *, status: int | None = None, error: str | None = None) -> dict[str, Any]:
    seconds = round(time.monotonic() - began, 3)
    return {"at": at.isoformat(timespec="milliseconds"), "status": status, "error": error, "seconds": seconds}


def _kind(error: Exception) -> str:
    """In one word what went wrong on the way."""
    if "certificate" in str(error).lower() or "ssl" in str(error).lower():
        return "tls"
    if "resolved" in str(error):
        return "unknown_host"
    return "connection" if isinstance(error, httpx2.TransportError) else "protocol"


def _pause(tries: int) -> timedelta:
    return PAUSES[tries] * (1 + random.uniform(0, JITTER))
