"""What every handler may use: the parts of the running service, found on the application's state."""

import asyncio
from dataclasses import dataclass, field, replace
from typing import Annotated

from fastapi import Depends, Request

from app.api.catalog import CatalogReader, ProjectCatalog
from app.api.layouts import LayoutReader
from app.api.principals import Acting
from app.api.upload_slots import UploadSlots
from app.database.backlog import Backlog
from app.database.session import Database
from app.jobs.events import Changes
from app.remotes.egress import Egress
from app.remotes.grants import Grants
from app.settings import Settings
from app.storage.objects import ObjectStore


@dataclass(frozen=True)
class Service:
    """The composition root's product (main.py), handed to each request."""

    settings: Settings
    database: Database
    store: ObjectStore
    changes: Changes
    catalog: ProjectCatalog
    every_catalog: CatalogReader
    """What is offered to all projects."""
    layouts: LayoutReader
    uploads: UploadSlots
    egress: Egress
    """What of other machines may be named in requests."""
    grants: Grants
    """Which places may be named to read from and to publish to."""
    backlog: Backlog
    supervisor: str | None = None
    """The run of `recast serve` that this api belongs to; None: it was started alone."""
    preflights: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    """Who reads and ranks a manifest, which takes a processor for a while: one at a time."""
    large_reports: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    """Who has a large report read (api/reports.py): one at a time."""
    graphs: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    """Who has the graphs of artifacts read, which take memory and a processor for a while: one at a time."""
    assembling: "dict[str, asyncio.Task[None]]" = field(default_factory=dict)
    """Resumable uploads that this process makes checkpoints of now, by id."""


async def _whole(request: Request) -> Service:
    found = request.app.state.service
    assert isinstance(found, Service)
    return found


WholeService = Annotated[Service, Depends(_whole)]
"""The service with everything that it has, of all projects: for what operators' machines ask."""


async def _of_project(whole: WholeService, acting: Acting) -> Service:
    database = whole.database.of(acting.project)
    return replace(whole, database=database, catalog=whole.every_catalog.of(database))


ServiceDependency = Annotated[Service, Depends(_of_project)]
"""The service as the project of the request sees it. Who uses it must have proved who asks."""
