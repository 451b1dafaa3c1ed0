"""Digests that a client sends with an upload, so that a file changed on its way is refused."""

import base64
import binascii
import re

from starlette.datastructures import Headers

from app.domain.errors import InvalidRequest

SHA256_HEX = re.compile(r"[0-9a-f]{64}")
REPR_DIGEST = re.compile(r"(?:^|,)\s*sha-256\s*=\s*:([A-Za-z0-9+/=]*):\s*(?=$|,)", re.IGNORECASE)
"""The sha-256 member of a Repr-Digest dictionary (RFC 9530); other algorithms in it are left alone."""


def told_sha256(headers: Headers) -> str | None:
    """The sha256 (hex) that the request says its file has, from X-Content-SHA256 or Repr-Digest; None if it says none.

    Raises InvalidRequest when a header is malformed or the two disagree: a digest that cannot be checked must not look
    checked.
    """
    plain = headers.get("x-content-sha256")
    told = plain.strip().lower() if plain is not None else None
    if told is not None and not SHA256_HEX.fullmatch(told):
        raise InvalidRequest("X-Content-SHA256 must be 64 hexadecimal digits.")
    structured = _repr_digest(headers.get("repr-digest"))
    if told is not None and structured is not None and told != structured:
        raise InvalidRequest("X-Content-SHA256 and Repr-Digest name different digests.")
    return told or structured


def _repr_digest(header: str | None) -> str | None:
    if header is None:
        return None
    match = REPR_DIGEST.search(header)
    if match is None:
        raise InvalidRequest("Repr-Digest holds no sha-256 of the form sha-256=:BASE64:.")
    try:
        digest = base64.b64decode(match.group(1), validate=True)
    except binascii.Error:
        raise InvalidRequest("The sha-256 of Repr-Digest is not base64.") from None
    if len(digest) != 32:
        raise InvalidRequest(f"The sha-256 of Repr-Digest has {len(digest)} bytes instead of 32.")
    return digest.hex()
