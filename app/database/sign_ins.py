"""People who signed in with a key: a browser holds a secret of its own, and only its sha256 is kept."""

import re
import secrets
from datetime import timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.database.keys import digest, valid
from app.database.tables import ApiKey, SignIn

PREFIX = "rs_"
FORM = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}")
LASTS = timedelta(days=7)


async def begin(session: AsyncSession, key: ApiKey) -> str:
    """The secret of a new sign-in, which acts as the key does, for as long as the key does and LASTS at most."""
    await session.execute(delete(SignIn).where(SignIn.expires_at < func.now()))
    secret = PREFIX + secrets.token_urlsafe(32)
    session.add(SignIn(digest=digest(secret), key_id=key.id, expires_at=func.now() + LASTS))
    return secret


async def find_key(session: AsyncSession, secret: str) -> ApiKey | None:
    """The key that was signed in with; None where the sign-in or the key is no longer valid."""
    if not FORM.fullmatch(secret):
        return None  # without a question to the database, which strangers could make many of
    query = select(ApiKey).join(SignIn, SignIn.key_id == ApiKey.id)
    query = query.where(SignIn.digest == digest(secret), SignIn.expires_at > func.now(), valid())
    return (await session.scalars(query)).first()


async def end(session: AsyncSession, secret: str) -> None:
    await session.execute(delete(SignIn).where(SignIn.digest == digest(secret)))
