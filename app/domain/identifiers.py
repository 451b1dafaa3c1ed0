"""Identifiers that clients see: a prefix that says what they name, and a UUIDv7, which sorts by time of creation."""

import os
import time
from uuid import UUID


def uuid7() -> UUID:
    """A version 7 UUID (RFC 9562, section 5.7): 48 bits of Unix milliseconds, then random bits."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds & (1 << 48) - 1) << 80 | random
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    return UUID(int=value)


def conversion_id() -> str:
    """A new identifier of a conversion, such as ``cnv_0195e0d4b8a27c3f9d1e5a6b7c8d9e0f``."""
    return new_id("cnv")


def new_id(prefix: str) -> str:
    """A new identifier of what the prefix names."""
    return f"{prefix}_{uuid7().hex}"
