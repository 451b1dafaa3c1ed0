"""Whose fault a death is. A process that dies without a word may have been killed by its job, by a neighbour of the
job, or by somebody who restarts machines; who looks from outside cannot tell.

So a death points at all that ran in the worker at that moment, unless the worker was told to stop. A job that a death
points at is tried again, alone (isolation.py). It is condemned when so many deaths point at it as a job may cause, the
last of them when it was alone, unless as many happened lately to which it had nothing to do: then everything dies here,
and the job is given more tries, but not without end.

A worker that died with its supervisor, as where a machine or a container is restarted, was killed by none of its jobs
as a rule: none reaches beyond its own process. Such deaths have a job run alone, and condemn it never.

Before a death can condemn, there is a control: the job is run by a worker only that has lived for a while without it,
since its own start and since the job's last death. Where workers and processes die whatever they run (a machine that is
restarted again and again, a database that takes everything with it, somebody who kills a few processes within seconds),
that goes on or ends in this time, and the job is not even there.
"""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from app.database import deaths

MOST = 3
"""Times the usual number of deaths with which a job is condemned whatever else dies."""


CONTROL = 4
"""How long a worker must have lived without a job that one more death may condemn before it runs it, in times of the
silence after which workers count as dead."""


@dataclass(frozen=True)
class Suspicion:
    """What a death means for one of those that ran then."""

    losses: int
    """Deaths that point at it, this one included."""
    condemned: bool


async def suspect(
    session: AsyncSession,
    one: str,
    earlier_losses: int,
    together: Collection[str],
    max_attempts: int,
    *,
    with_supervisor: bool = False,
) -> Suspicion:
    """Count a recorded death against ``one`` of those that ran ``together`` in the worker; one of the worker
    ``with_supervisor`` only as far as it takes two more to condemn."""
    if with_supervisor:
        return Suspicion(max(earlier_losses, min(earlier_losses + 1, max_attempts - 2)), condemned=False)
    losses = earlier_losses + 1
    if losses < max_attempts or len(together) > 1:
        return Suspicion(losses, condemned=False)
    condemned = losses >= MOST * max_attempts or await deaths.elsewhere(session, one) < losses
    return Suspicion(losses, condemned)


async def control_left(
    session: AsyncSession, one: str, losses: int, *, lived: float, max_attempts: int, lost_after: float
) -> float:
    """Seconds for which a worker that has ``lived`` for so many must go on without ``one``, at which so many deaths
    point, before it runs it; 0 where one more cannot condemn it."""
    if not losses or losses < max_attempts - 1:
        return 0.0
    without = min(lived, await deaths.seconds_since_last(session, one))
    return max(0.0, CONTROL * lost_after - without)
