"""Whose conversion is next: every project that waits gets an equal part of the machines, whoever sent more.

First those that have the fewest conversions under way, so that none holds all machines for as long as its conversions
take. Among equals the one that has been served the fewest seconds so far, counted as start-time fair queueing does
(Goyal, Vin and Cheng, SIGCOMM 1996): ``began`` is a project's count when it was last served, the largest of them is the
virtual time, and who comes back after a while starts from there: nobody saves up by waiting. Within a project the
highest priority is first, then the oldest. A project's ``share`` (limits.Limits) counts as so many projects, and one
that runs as many conversions as its limit ``running`` admits waits.
"""

from collections.abc import Collection

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import limits
from app.database.session import commit_without_waiting

_ORDER = text("""
    with recursive waiting (project_id) as (
        (select project_id from conversions where state = 'queued' order by project_id limit 1)
        union all
        select (
            select next.project_id from conversions next
            where next.state = 'queued' and next.project_id > waiting.project_id order by next.project_id limit 1
        ) from waiting where waiting.project_id is not null
    ), under_way as (
        select c.project_id, count(*) as number
        from procrastinate_jobs j join conversions c on c.id = j.args ->> 'conversion_id'
        where j.status = 'doing' and j.worker_id is not null and j.queue_name = :queue
        group by c.project_id
    )
    select waiting.project_id, cast(projects.limits ->> 'running' as bigint) as most
    from waiting
    left join under_way using (project_id)
    left join shares using (project_id)
    left join projects on projects.id = waiting.project_id
    where waiting.project_id is not null
      and (projects.limits ->> 'running' is null
           or coalesce(under_way.number, 0) < cast(projects.limits ->> 'running' as bigint))
    order by
        coalesce(under_way.number, 0) / coalesce((projects.limits ->> 'share')::float8, 1),
        greatest(shares.served, (select max(began) from shares)),
        waiting.project_id
""")
"""The projects that wait, by a skip scan over the index of what waits: its cost is that of the number of projects."""
_TAKE = text("""
    update procrastinate_jobs set status = 'doing', worker_id = :worker_id
    where id = (
        select j.id from conversions c join procrastinate_jobs j on j.id = c.queue_job_id
        where c.state = 'queued' and c.project_id = :project and j.status = 'todo' and j.queue_name = :queue
          and (j.scheduled_at is null or j.scheduled_at <= now()) and not c.architecture = any(:lacking)
          and not jsonb_exists_any(c.needs, :lacking)
        order by c.priority desc, c.id limit 1 for update of j skip locked
    )
    returning id, args
""")
_RUNS = text("""
    select count(*) from procrastinate_jobs j join conversions c on c.id = j.args ->> 'conversion_id'
    where j.status = 'doing' and j.worker_id is not null and j.queue_name = :queue and c.project_id = :project
""")
_CHARGE = text("""
    with now (virtual) as (select coalesce(max(began), 0) from shares)
    insert into shares (project_id, began, served)
    select :project, virtual, virtual + :seconds / :share from now
    where exists (select from conversions where state = 'queued' and project_id < :project)
       or exists (select from conversions where state = 'queued' and project_id > :project)
    on conflict (project_id) do update set
        began = greatest(shares.served, excluded.began),
        served = greatest(shares.served, excluded.began) + excluded.served - excluded.began
""")


async def take(
    session: AsyncSession, queue: str, worker_id: int, lacking: Collection[str] = ()
) -> tuple[int, dict[str, str]] | None:
    """Give the conversion that is next to a worker: the id and the arguments of its queue entry; None when none waits.

    None that is of, or needs, what the worker is ``lacking``.

    Raises IntegrityError for a worker that is not registered.
    """
    projects = (await session.execute(_ORDER, {"queue": queue})).all()
    for project, most in projects:  # all that a project has waiting may be in other workers' hands by now
        if most is not None and not await _may_run_more(session, queue, project, most):
            continue
        wanted = {"queue": queue, "project": project, "worker_id": worker_id, "lacking": list(lacking)}
        found = await session.execute(_TAKE, wanted)
        if (row := found.first()) is not None:
            return row.id, row.args
    return None


async def _may_run_more(session: AsyncSession, queue: str, project: str, most: int) -> bool:
    """Whether a project runs fewer than so many, counted anew once no other worker takes one of its conversions."""
    await limits.decide_alone(session, "running", project)
    return (await session.scalar(_RUNS, {"queue": queue, "project": project}) or 0) < most


async def charge(session: AsyncSession, project: str, seconds: float, share: float) -> None:
    """Count what a project was served, where others wait; a crash of the database may forget it."""
    await commit_without_waiting(session)
    await session.execute(_CHARGE, {"project": project, "seconds": seconds, "share": share})
