"""The Prefer header (RFC 7240), of which ``wait`` and ``respond-async`` are understood."""

import re

WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})\"?(?=$|[,;\s])", re.IGNORECASE)
LONGEST_WAIT = 600
"""Seconds; proxies and clients give up on longer silences."""


def wait_seconds(header: str | None) -> int | None:
    """How long the client is willing to wait, at most LONGEST_WAIT; None when it did not say."""
    match = WAIT.search(header) if header is not None else None
    return None if match is None else min(int(match.group(1)), LONGEST_WAIT)
