"""Webhooks: who is told what happens to conversions, and what became of each message."""

import json
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.bodies import json_body, json_model
from app.api.labels import Name
from app.api.parameters import link_next
from app.api.problems import PROBLEM_RESPONSES
from app.api.readable import ReadableRouter
from app.api.service import ServiceDependency
from app.database import webhooks as rows
from app.database.tables import Delivery, Webhook
from app.domain.errors import InvalidRequest
from app.domain.webhook import DEFAULT_EVENTS, NewWebhook, WebhookEvent, is_secret, new_secret
from app.remotes.egress import LONGEST_URL, Egress, checked_url

router = ReadableRouter(prefix="/v1/webhooks", tags=["webhooks"], responses=PROBLEM_RESPONSES)

LARGEST_PAGE = 200
DAY = 86_400
LONGEST_OVERLAP = 30 * DAY
EXAMPLE = {"url": "https://dashboard.example.com/recast", "events": ["conversion.succeeded", "conversion.failed"]}

EVENTS = [event.value for event in WebhookEvent]
Event = Annotated[str, Field(json_schema_extra={"enum": list(EVENTS)}, pattern=f"^({'|'.join(EVENTS)})$")]
WebhookId = Annotated[str, Path(pattern=r"^[\x21-\x7e]{1,100}$")]
MessageId = Annotated[str, Path(pattern=r"^[\x21-\x7e]{1,100}$")]
Cursor = Annotated[str | None, Query(pattern=r"^[a-z]{3}_[0-9a-f]{32}$", description="next_cursor of the page before")]


class WebhookRequest(BaseModel):
    """Who is to be told. ``events``: of what; left out: of every end. ``secret``: left out, one is made."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    url: Annotated[str, Field(max_length=LONGEST_URL)]
    events: Annotated[list[Event], Field(min_length=1, max_length=20)] | None = None
    name: Name | None = None
    secret: Annotated[str, Field(max_length=200)] | None = None


class WebhookResource(BaseModel):
    """A webhook without its secret."""

    id: str
    name: str | None
    url: str
    events: list[str]
    conversion: str | None
    """The one conversion that it is told of; null: all of the project."""
    created_at: datetime
    disabled_at: datetime | None
    """Since when it is told nothing more, because it answered 410."""
    secrets_valid_until: list[datetime | None]
    """Of each secret that messages are signed with now, the newest first; null: until it is replaced."""
    links: dict[str, str]


class MadeWebhook(WebhookResource):
    """``secret`` is told this once."""

    secret: str


class WebhookList(BaseModel):
    """Newest first."""

    items: list[WebhookResource]
    next_cursor: str | None


class RotateRequest(BaseModel):
    """For how many seconds messages are signed with the secret before, too."""

    model_config = ConfigDict(extra="forbid")

    overlap: Annotated[int, Field(ge=0, le=LONGEST_OVERLAP, strict=True)] = DAY


class AttemptResource(BaseModel):
    """One attempt: the receiver's status, or in one word what went wrong on the way."""

    at: datetime
    status: int | None
    error: str | None
    seconds: float


class DeliveryResource(BaseModel):
    """A message. ``id`` is its ``webhook-id``, the same in every attempt."""

    id: str
    event: str
    conversion: str | None
    state: Literal["pending", "delivered", "failed"]
    attempts: list[AttemptResource]
    created_at: datetime
    next_attempt_at: datetime | None
    finished_at: datetime | None
    payload: dict[str, Any]


class DeliveryList(BaseModel):
    """Newest first."""

    items: list[DeliveryResource]
    next_cursor: str | None


def checked_webhook(told: WebhookRequest, egress: Egress, *, secret_needed: bool = False) -> NewWebhook:
    """Raises InvalidRequest, AddressNotAllowed. No error repeats a secret."""
    if told.secret is None and secret_needed:
        raise InvalidRequest(
            "webhook.secret is missing: it is what the receiver will know messages by.",
            hint='echo "whsec_$(openssl rand -base64 32)" makes one.',
        )
    if told.secret is not None and not is_secret(told.secret):
        raise InvalidRequest(
            "secret must be whsec_ and the base64 of 24 to 64 bytes.",
            hint='echo "whsec_$(openssl rand -base64 32)" makes one.',
        )
    checked_url(told.url, egress)
    events = DEFAULT_EVENTS if told.events is None else tuple(map(WebhookEvent, dict.fromkeys(told.events)))
    return NewWebhook(url=told.url, events=events, secret=told.secret or new_secret(), name=told.name)


@router.post("", status_code=201, summary="Make a webhook", openapi_extra=json_body(WebhookRequest, EXAMPLE))
async def create_webhook(request: Request, service: ServiceDependency) -> MadeWebhook:
    """It is told what happens to all conversions of the project. The secret is shown this once."""
    told = await json_model(request, WebhookRequest)
    new = checked_webhook(told, service.egress)
    async with service.database.transaction() as session:
        row = await rows.create(session, new)
    return MadeWebhook(**_webhook(row).model_dump(), secret=new.secret)


@router.get("", summary="List webhooks")
async def list_webhooks(
    *,
    request: Request,
    response: Response,
    service: ServiceDependency,
    conversion: Annotated[str | None, Query(max_length=100, pattern="^cnv_", description="Those of it alone")] = None,
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=LARGEST_PAGE)] = 50,
) -> WebhookList:
    """Those of the project, or those that a request for a conversion named."""
    async with service.database.transaction() as session:
        found = await rows.listed(session, conversion, limit + 1, cursor)
    next_cursor = found[limit - 1].id if len(found) > limit else None
    link_next(request, response, next_cursor)
    return WebhookList(items=[_webhook(row) for row in found[:limit]], next_cursor=next_cursor)


@router.get("/{webhook_id}", summary="Get a webhook")
async def get_webhook(webhook_id: WebhookId, service: ServiceDependency) -> WebhookResource:
    async with service.database.transaction() as session:
        return _webhook(await rows.find(session, webhook_id))


@router.delete("/{webhook_id}", status_code=204, summary="Delete a webhook")
async def delete_webhook(webhook_id: WebhookId, service: ServiceDependency) -> None:
    """With its messages; those that wait are not sent."""
    async with service.database.transaction() as session:
        await rows.remove(session, webhook_id)


@router.post(
    "/{webhook_id}/rotate", summary="Replace the secret", openapi_extra=json_body(RotateRequest, {"overlap": DAY})
)
async def rotate_webhook(webhook_id: WebhookId, request: Request, service: ServiceDependency) -> MadeWebhook:
    """Messages are signed with the new secret and, for `overlap` seconds, with the one before too."""
    async with service.database.transaction() as session:
        await rows.find(session, webhook_id)
    told = await json_model(request, RotateRequest)
    async with service.database.transaction() as session:
        row, secret = await rows.rotate(session, webhook_id, timedelta(seconds=told.overlap))
    return MadeWebhook(**_webhook(row).model_dump(), secret=secret)


@router.post("/{webhook_id}/ping", status_code=202, summary="Send a message to try it")
async def ping_webhook(webhook_id: WebhookId, service: ServiceDependency) -> DeliveryResource:
    """Its type is `ping`, whatever events the webhook is told of."""
    async with service.database.transaction() as session:
        return _delivery(await rows.ping(session, webhook_id))


@router.get("/{webhook_id}/deliveries", summary="List a webhook's messages")
async def list_deliveries(
    *,
    webhook_id: WebhookId,
    request: Request,
    response: Response,
    service: ServiceDependency,
    state: Annotated[Literal["pending", "delivered", "failed"] | None, Query(description="Only those")] = None,
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=LARGEST_PAGE)] = 50,
) -> DeliveryList:
    """Kept for 30 days, each with its last 50 attempts."""
    async with service.database.transaction() as session:
        found = await rows.deliveries(session, webhook_id, [state] if state else [], limit + 1, cursor)
    next_cursor = found[limit - 1].id if len(found) > limit else None
    link_next(request, response, next_cursor)
    return DeliveryList(items=[_delivery(row) for row in found[:limit]], next_cursor=next_cursor)


@router.post(
    "/{webhook_id}/deliveries/{message_id}/redeliver", status_code=202, summary="Send a webhook's message again"
)
async def redeliver_message(
    webhook_id: WebhookId, message_id: MessageId, service: ServiceDependency
) -> DeliveryResource:
    """At once, with the same `webhook-id` and body, and with as many attempts as a new one."""
    async with service.database.transaction() as session:
        return _delivery(await rows.redeliver(session, webhook_id, message_id))


def _webhook(row: Webhook) -> WebhookResource:
    path = f"/v1/webhooks/{row.id}"
    return WebhookResource(
        id=row.id,
        name=row.name,
        url=row.url,
        events=row.events,
        conversion=row.conversion_id,
        created_at=row.created_at,
        disabled_at=row.disabled_at,
        secrets_valid_until=[secret.expires_at for secret in rows.valid_secrets(row)],
        links={"self": path, "deliveries": f"{path}/deliveries"},
    )


def _delivery(row: Delivery) -> DeliveryResource:
    return DeliveryResource.model_validate(
        {
            "id": row.id,
            "event": row.event,
            "conversion": row.conversion_id,
            "state": row.state,
            "attempts": row.attempts,
            "created_at": row.created_at,
            "next_attempt_at": row.next_try_at,
            "finished_at": row.finished_at,
            "payload": json.loads(row.body),
        }
    )
