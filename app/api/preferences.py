"""The Prefer header (RFC 7240), of which ``wait`` and ``respond-async`` are understood."""

import re
from collections.abc import Sequence

WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})\"?(?=$|[,;\s])", re.IGNORECASE)
LONGEST_WAIT = 600
"""Seconds; proxies and clients give up on longer silences."""


def wait_seconds(lines: Sequence[str] | None) -> int | None:
    """How long the client is willing to wait, at most LONGEST_WAIT; None when it did not say.

    Several header lines are one list, in which the first mention counts (RFC 7240, section 2).
    """
    match = WAIT.search(", ".join(lines or ()))
    return None if match is None else min(int(match.group(1)), LONGEST_WAIT)
