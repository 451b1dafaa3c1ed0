"""Telling clients that an operation will go: RFC 9745 (Deprecation), RFC 8594 (Sunset), and OpenAPI's ``deprecated``.

docs/compatibility.md says how long before.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, TypeVar

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

NOTICE = timedelta(days=365)
"""Least time between the two dates."""
_MARK = "__retirement__"

Operation = TypeVar("Operation", bound=Callable[..., Any])


@dataclass(frozen=True)
class Retirement:
    """Since when an operation should not be used, when it goes at the earliest, and the page that says what to use."""

    since: datetime
    sunset: datetime
    instead: str

    def __post_init__(self) -> None:
        if self.sunset - self.since < NOTICE:
            raise ValueError(f"{NOTICE.days} days lie between the notice and the end of an operation")

    @property
    def headers(self) -> dict[str, str]:
        return {
            "Deprecation": f"@{int(self.since.timestamp())}",
            "Sunset": format_datetime(self.sunset.astimezone(UTC), usegmt=True),
            "Link": f'<{self.instead}>; rel="deprecation"; type="text/html"',
        }


def retires(since: datetime, sunset: datetime, instead: str) -> Callable[[Operation], Operation]:
    """Mark an operation, below its route: every answer of it carries the headers, and the document says so."""
    retirement = Retirement(since, sunset, instead)

    def marked(operation: Operation) -> Operation:
        setattr(operation, _MARK, retirement)
        return operation

    return marked


def retirement_of(operation: Callable[..., Any] | None) -> Retirement | None:
    found = getattr(operation, _MARK, None)
    return found if isinstance(found, Retirement) else None


class Retirements:
    """Adds the headers to every answer of an operation that is marked, errors included."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start":
                retirement = retirement_of(getattr(scope.get("route"), "endpoint", None))
                if retirement is not None:
                    headers = MutableHeaders(scope=message)
                    for name, value in retirement.headers.items():
                        headers.append(name, value)
            await send(message)

        await self.app(scope, receive, telling)
