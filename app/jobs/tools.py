"""What a worker runs jobs with."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from app.architectures.known_catalog import known_catalog
from app.database.session import Database
from app.domain.architecture import ArchitectureDescription
from app.jobs.admission import Admission
from app.jobs.confinement import Limits
from app.jobs.events import Changes
from app.jobs.isolation import Isolation
from app.jobs.offer import Offer
from app.jobs.signing import Signing
from app.jobs.supervisor import Supervisor
from app.remotes.egress import Egress
from app.remotes.grants import Grants
from app.storage.objects import ObjectStore


@dataclass(frozen=True)
class Tasks:
    """What the children of a worker run (``module:function``), and the modules that their forkserver imports first."""

    conversion: str = "app.jobs.child:run_conversion"
    inspection: str = "app.jobs.child:run_inspection"
    catalog: str = "app.jobs.child:run_catalog"
    layouts: str = "app.jobs.child:run_layouts"
    recipe: str = "app.jobs.child:run_recipe"
    rehearsal: str = "app.jobs.child:run_rehearsal"
    preload: tuple[str, ...] = ("app.jobs.warm",)
    known_catalog: Callable[[], Sequence[ArchitectureDescription] | None] = lambda: None
    """What the libraries offer, where that is known before any child can tell; None: it is not."""


TASKS = Tasks(known_catalog=known_catalog)


@dataclass(frozen=True)
class Tools:
    """What a worker runs jobs with."""

    database: Database
    store: ObjectStore
    signing: Signing
    changes: Changes
    supervisor: Supervisor
    admission: Admission
    work_dir: Path
    name: str
    """The worker's name: host and process."""
    limits: Limits
    inspection_limits: Limits
    max_attempts: int
    """Deaths that point at a job after which it is not tried again."""
    lost_after: float
    """Seconds without a sign of life after which a worker counts as dead."""
    threads: int | None = None
    """Of one conversion; None: its share of the cores when it starts."""
    plugins_dir: Path | None = None
    tasks: Tasks = TASKS
    offer: Offer = field(default_factory=Offer)
    egress: Egress = field(default_factory=Egress)
    """What of other machines may be reached."""
    grants: Grants = field(default_factory=lambda: Grants(None))
    """Which places may be read from and published to."""
    largest_upload: int = 16 << 30
    """Bytes of a checkpoint."""
    isolation: Isolation = field(default_factory=Isolation)
    since: float = field(default_factory=time.monotonic)
    """When the worker began to live (monotonic clock)."""
    running: set[str] = field(default_factory=set)
    """Ids of the conversions, and sha256 of the checkpoints, that have a process now."""
