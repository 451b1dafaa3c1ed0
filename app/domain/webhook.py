"""Webhooks: what a receiver is told of, and the secrets that it knows the sender by (https://www.standardwebhooks.com)."""

import base64
import binascii
import secrets
from datetime import datetime
from enum import StrEnum

from app.domain.base import Value
from app.domain.conversion import State

PREFIX = "whsec_"
LEAST_BYTES, MOST_BYTES = 24, 64
"""Of a secret (Standard Webhooks, "Signature scheme")."""


class WebhookEvent(StrEnum):
    """What happened to a conversion."""

    queued = "conversion.queued"
    started = "conversion.started"
    succeeded = "conversion.succeeded"
    failed = "conversion.failed"
    canceled = "conversion.canceled"
    timed_out = "conversion.timed_out"
    published = "conversion.published"
    publish_failed = "conversion.publish_failed"


OF_STATE = {
    State.queued: WebhookEvent.queued,
    State.running: WebhookEvent.started,
    State.succeeded: WebhookEvent.succeeded,
    State.failed: WebhookEvent.failed,
    State.canceled: WebhookEvent.canceled,
    State.timed_out: WebhookEvent.timed_out,
}
DEFAULT_EVENTS = tuple(event for state, event in OF_STATE.items() if state.final)


class Secret(Value):
    """One of the secrets that messages are signed with. ``expires_at`` None: until it is replaced."""

    secret: str
    expires_at: datetime | None = None


class NewWebhook(Value):
    """A receiver: its URL, what it is told of, and the secret that its messages are signed with."""

    url: str
    events: tuple[WebhookEvent, ...] = DEFAULT_EVENTS
    secret: str
    name: str | None = None


def new_secret() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode("ascii")


def is_secret(text: str) -> bool:
    """Whether a text is a secret as Standard Webhooks writes them."""
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return False
    return text.startswith(PREFIX) and LEAST_BYTES <= len(key) <= MOST_BYTES
