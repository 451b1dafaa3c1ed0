"""Signing statements, in the worker: the key never reaches a conversion's process."""

import asyncio
import secrets
from functools import partial

from app.database import signing
from app.database.session import Database
from app.delivery.statement import KEY_BYTES, Signer, key_id
from app.jobs.patience import patiently


class Signing:
    """Gives the signer: of the configured seed (32 bytes), else of the key that the database keeps."""

    def __init__(self, database: Database, seed: bytes | None = None) -> None:
        self._database = database
        self._seed = seed
        self._signer: Signer | None = None
        self._finding = asyncio.Lock()

    async def signer(self) -> Signer:
        """A key is made and kept where there is none; whoever comes second uses that of the first."""
        async with self._finding:
            if self._signer is None:
                self._signer = await patiently(partial(self._find))
            return self._signer

    async def _find(self) -> Signer:
        made = Signer(self._seed or secrets.token_bytes(KEY_BYTES))
        kept = None if self._seed else made.seed
        async with self._database.transaction() as session:
            if kept is None or await signing.own_seed(session) is None:
                await signing.add(session, key_id(made.public), made.public, kept)
        async with self._database.transaction() as session:
            first = await signing.own_seed(session)
        return made if kept is None or first is None else Signer(first)
