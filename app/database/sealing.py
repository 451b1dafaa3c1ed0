"""Secrets of others that must be read again, such as those that webhooks are signed with: encrypted in their rows.

The key follows from the operator's own (RECAST_SIGNING_KEY), so that a copy of the database alone tells none of them.
Without that setting there is no key that does not lie in the same database, and they are kept as they are.
"""

import base64
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy.ext.asyncio import AsyncSession

SEALED = "sealed:1:"
PURPOSE = b"recast: secrets of webhooks"
KEY_BYTES = 32
NONCE_BYTES = 12
_INFO = "sealing_key"


class Unreadable(Exception):
    """A secret was sealed with another key than this service has."""


def session_info(seed: bytes | None) -> dict[str, bytes]:
    """What a session seals with, of the operator's key; nothing without one."""
    if seed is None:
        return {}
    return {_INFO: HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=PURPOSE).derive(seed)}


def seal(session: AsyncSession, secret: str) -> str:
    """The secret as it is kept in a row."""
    key: bytes | None = session.info.get(_INFO)
    if key is None:
        return secret
    nonce = secrets.token_bytes(NONCE_BYTES)
    return SEALED + base64.b64encode(nonce + AESGCM(key).encrypt(nonce, secret.encode(), None)).decode("ascii")


def unseal(session: AsyncSession, kept: str) -> str:
    """The secret of a row. Raises Unreadable."""
    if not kept.startswith(SEALED):
        return kept
    key: bytes | None = session.info.get(_INFO)
    content = base64.b64decode(kept.removeprefix(SEALED))
    if key is None:
        raise Unreadable
    try:
        return AESGCM(key).decrypt(content[:NONCE_BYTES], content[NONCE_BYTES:], None).decode()
    except InvalidTag:
        raise Unreadable from None
