"""Publishing: where a finished conversion's files are put beside the service's own store, and what came of it."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from app.domain.base import Value

PublicationState = Literal["waiting", "pending", "published", "failed", "skipped"]
"""waiting: for the conversion's end. skipped: it did not succeed."""


class Publication(Value):
    """One place, and how far publishing to it is."""

    uri: str
    name: str | None = None
    """What the model is called there; None: as its architecture."""
    version: int | None = Field(None, ge=1, le=2**31 - 1)
    """None: the next one that is free."""
    state: PublicationState = "waiting"
    tries: int = 0
    receipt: dict[str, Any] | None = None
    """Where the files are, and under which version or digest."""
    error: dict[str, Any] | None = None
    published_at: datetime | None = None
    queue_job_id: int | None = None
