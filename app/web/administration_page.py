"""The page for who administers a project, or the service: keys, projects and limits, webhooks, workers, the log."""

from typing import Any

from starlette.responses import HTMLResponse

from app.api.principals import Acting
from app.api.readable import ReadableRouter
from app.api.service import ServiceDependency, WholeService
from app.api.webhooks import EVENTS
from app.database import audit, keys, projects, webhooks, workers
from app.database.keys import SCOPES
from app.database.limits import Limits
from app.web.rendering import page

router = ReadableRouter(include_in_schema=False)

AUDITED = 50
MOST_WEBHOOKS = 50


@router.get("/administration")
async def administration_page(service: WholeService, own: ServiceDependency, acting: Acting) -> HTMLResponse:
    acting.require("admin")
    seen = None if acting.operator else acting.project
    async with service.database.transaction() as session:
        listed = await projects.listed(session, seen)
        values: dict[str, Any] = {
            "keys": await keys.listed(session, seen),
            "projects": [(project, Limits.kept(project.limits)) for project in listed],
            "entries": await audit.newest(session, seen, before=None, limit=AUDITED),
            "workers": await workers.alive(session, service.settings.worker_lost_after) if acting.operator else (),
        }
    async with own.database.transaction() as session:
        told = [
            (row, await webhooks.deliveries(session, row.id, [], 1, None))
            for row in await webhooks.listed(session, None, MOST_WEBHOOKS, None)
        ]
    names = {project.id: project.name for project in listed}
    return page(
        "administration.html",
        acting=acting,
        scopes=SCOPES,
        names=names,
        limits=list(Limits.model_fields),
        webhooks=told,
        events=EVENTS,
        **values,
    )
