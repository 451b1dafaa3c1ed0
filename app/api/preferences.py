"""The Prefer header (RFC 7240), of which ``wait`` and ``respond-async`` are understood."""

import re
from collections.abc import Sequence
from typing import Annotated

from fastapi import Depends, Header, Request

WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})\"?(?=$|[,;\s])", re.IGNORECASE)
LONGEST_WAIT = 600
"""Seconds; proxies and clients give up on longer silences."""


def wait_seconds(lines: Sequence[str] | None) -> int | None:
    """How long the client is willing to wait, at most LONGEST_WAIT; None when it did not say.

    Several header lines are one list, in which the first mention counts (RFC 7240, section 2). Whatever else stands
    there is ignored, as that section demands.
    """
    match = WAIT.search(", ".join(lines or ()))
    return None if match is None else min(int(match.group(1)), LONGEST_WAIT)


async def _patience(
    request: Request,
    prefer: Annotated[
        str | None,
        Header(description=f"`wait=N`: answer when it is done, after N seconds at the latest (at most {LONGEST_WAIT})"),
    ] = None,
) -> int | None:
    del prefer  # the documented form; the header may also stand in several lines
    return wait_seconds(request.headers.getlist("prefer"))


Patience = Annotated[int | None, Depends(_patience)]
"""Seconds that the client is willing to wait; None when it did not say."""
