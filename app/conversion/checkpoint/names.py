"""Names that a file gives: which of them can be a tensor's, and how messages show them."""

from app.domain.errors import UnsupportedTensor

MAX_NAME = 1024
"""Bytes of a key of a dict, and of a global's name; the longest of published models have some hundred."""
SHOWN = 200
"""Characters of a name that messages show."""


def check_key(key: str) -> str:
    """The key. Raises UnsupportedTensor for one that no database, JSON text or graph can hold as a name."""
    if len(key) > MAX_NAME or len(key.encode("utf-8", "surrogatepass")) > MAX_NAME:
        raise UnsupportedTensor(f"A key in the file has {len(key):,} characters; at most {MAX_NAME:,} bytes are read.")
    if "\0" in key or _has_surrogates(key):
        raise UnsupportedTensor(f"The key '{shown(key)}' holds a character that no name can hold (NUL or surrogate).")
    return key


def _has_surrogates(key: str) -> bool:
    """By encoding it, which is faster than a search by far: one key may be at a million places."""
    try:
        key.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def shown(name: str) -> str:
    """A name out of a file, fit for a message: printable and short."""
    start = name[:SHOWN]
    text = start if start.isprintable() else start.encode("unicode_escape").decode("ascii")[: 2 * SHOWN]
    return text if len(name) <= SHOWN else f"{text}..."
