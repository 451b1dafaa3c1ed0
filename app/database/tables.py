"""The tables: what clients can see outlives the queue's housekeeping, so it is kept in rows of its own.

Result rows are plain objects once their session ends (no lazy loading). The queue's own tables belong to Procrastinate
and are described in migrations/queue.py only.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Computed,
    DateTime,
    Enum,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    SmallInteger,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from app.domain.conversion import State

UNREAD = "queue_job_id is not null"
HELD = "case when state in ('queued', 'running') then nullif(checkpoint_sha256, '') end"


class Table(DeclarativeBase):
    """The base of all tables; says which column type each Python type becomes."""

    type_annotation_map = {
        str: Text(),
        int: BigInteger(),
        bytes: LargeBinary(),
        datetime: DateTime(timezone=True),
        State: Enum(State, native_enum=False, length=16),
        dict[str, Any]: JSONB(none_as_null=True),
        list[Any]: JSONB(none_as_null=True),
    }


class Checkpoint(Table):
    """An uploaded weights file. Its bytes lie in the object store under ``sha256``."""

    __tablename__ = "checkpoints"
    __table_args__ = (
        Index("checkpoints_worker", "worker_id", postgresql_where=text("worker_id is not null")),
        Index("checkpoints_unread", "sha256", postgresql_where=text(UNREAD)),
    )

    sha256: Mapped[str] = mapped_column(primary_key=True)
    bytes: Mapped[int]
    filename: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    uploaded_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """When it was last sent; retention counts from here."""
    inspection_attempts: Mapped[int] = mapped_column(server_default=text("0"))
    """How many deaths of processes that read it point at the file."""
    queue_job_id: Mapped[int | None]
    """Its entry in the queue; None once it was read for all who asked."""
    worker_id: Mapped[int | None]
    """The Worker that reads it now."""
    waiting_for: Mapped[str | None]
    """The part of the service that is away and that its reading waits for: store or disk_space."""


class Project(Table):
    """Who owns conversions and checkpoints; sees nothing of other projects."""

    __tablename__ = "projects"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    limits: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    """A limits.Limits."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ApiKey(Table):
    """What a program proves itself with. The key itself is not kept."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    name: Mapped[str]
    digest: Mapped[str] = mapped_column(unique=True)
    """sha256 of the key, hexadecimal."""
    shown: Mapped[str]
    """The key's first characters."""
    scopes: Mapped[list[Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    """To the minute."""


class SignIn(Table):
    """A browser that acts as a key since its owner signed in with it."""

    __tablename__ = "sign_ins"

    digest: Mapped[str] = mapped_column(primary_key=True)
    """sha256 of the browser's secret, hexadecimal."""
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]


class AuditEntry(Table):
    """One thing that somebody asked the service to change, and how that ended."""

    __tablename__ = "audit"
    __table_args__ = (Index("audit_project", "project_id", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    project_id: Mapped[str]
    key_id: Mapped[str | None]
    """None: nobody had to prove anything."""
    action: Mapped[str]
    """The operation's id, such as cancel_conversion."""
    subject: Mapped[str]
    """The path."""
    outcome: Mapped[str]
    """ok, or the code of the problem."""
    client: Mapped[str]
    request_id: Mapped[str]


class Rate(Table):
    """How far ahead of time somebody's requests are."""

    __tablename__ = "rates"

    key: Mapped[str] = mapped_column(primary_key=True)
    next_at: Mapped[datetime]


class Share(Table):
    """What a project has been served while others waited (jobs/fairness.py), in seconds of conversions."""

    __tablename__ = "shares"

    project_id: Mapped[str] = mapped_column(primary_key=True)
    began: Mapped[float]
    """``served`` as it was before the latest conversion."""
    served: Mapped[float]


class Upload(Table):
    """A resumable upload: of a file that arrives in parts, at any replica."""

    __tablename__ = "uploads"
    __table_args__ = (Index("uploads_project", "project_id"), Index("uploads_expiry", "expires_at"))

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str]
    length: Mapped[int]
    """Bytes of the whole file."""
    received: Mapped[int] = mapped_column(server_default=text("0"))
    """Bytes that have arrived and are durable."""
    lease: Mapped[int] = mapped_column(server_default=text("0"))
    """Who wrote this number may add parts, until somebody writes the next."""
    told: Mapped[str | None]
    """The client's Upload-Metadata, as it came."""
    filename: Mapped[str | None]
    name: Mapped[str | None]
    labels: Mapped[dict[str, Any] | None]
    expected_sha256: Mapped[str | None]
    checkpoint_sha256: Mapped[str | None]
    """The checkpoint that it became."""
    problem: Mapped[dict[str, Any] | None]
    """A Problem: why it became none."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ended_at: Mapped[datetime | None]
    """When ``checkpoint_sha256`` or ``problem`` was found; the parts are gone then."""
    expires_at: Mapped[datetime]


class UploadPart(Table):
    """Bytes of an unfinished upload, in the object store under ``sha256``."""

    __tablename__ = "upload_parts"
    __table_args__ = (Index("upload_parts_object", "sha256"),)

    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True)
    start: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """Of its first byte in the file."""
    bytes: Mapped[int]
    sha256: Mapped[str]


class CheckpointOwner(Table):
    """That a project has uploaded a file, under which name, and what is known of it there.

    Projects do not learn of each other's files: one that sends what another has sent before has it read anew, and what
    a conversion tells of a file is believed by its own project alone.
    """

    __tablename__ = "checkpoint_owners"
    __table_args__ = (Index("checkpoint_owners_project", "project_id", "created_at"),)

    sha256: Mapped[str] = mapped_column(ForeignKey("checkpoints.sha256", ondelete="CASCADE"), primary_key=True)
    project_id: Mapped[str] = mapped_column(primary_key=True)
    filename: Mapped[str | None]
    name: Mapped[str | None]
    labels: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    uploaded_at: Mapped[datetime] = mapped_column(server_default=func.now())
    inspection: Mapped[dict[str, Any] | None]
    """A CheckpointInspection; None while it is awaited or when ``problem`` says why there is none."""
    problem: Mapped[dict[str, Any] | None]
    """A Problem: why the file is no checkpoint."""
    parameters: Mapped[dict[str, Any] | None]
    """A ParameterReport, as the last conversion that loaded it told; None while none has."""
    inspected_at: Mapped[datetime | None]

    file: Mapped[Checkpoint] = relationship(lazy="joined", innerjoin=True)

    @property
    def read(self) -> bool:
        """Whether it is known what is in the file, or why nothing."""
        return self.inspection is not None or self.problem is not None


class Conversion(Table):
    """One conversion, the resource that clients see."""

    __tablename__ = "conversions"
    __table_args__ = (
        Index("conversions_unfinished", "state", postgresql_where=text("state in ('queued', 'running')")),
        Index("conversions_dedup", "dedup_key", postgresql_where=text("state = 'succeeded'")),
        Index("conversions_checkpoint", "checkpoint_sha256"),
        Index("conversions_finished", "finished_at"),
        Index("conversions_holding", "held_checkpoint", postgresql_where=text("held_checkpoint is not null")),
        ForeignKeyConstraint(["held_checkpoint"], ["checkpoints.sha256"], name="conversions_held_checkpoint"),
        Index("conversions_project", "project_id", "id"),
        Index("conversions_labels", "labels", postgresql_using="gin"),
        Index("conversions_worker", "worker_id", postgresql_where=text("worker_id is not null")),
        Index(
            "conversions_waiting", "project_id", text("priority desc"), "id", postgresql_where=text("state = 'queued'")
        ),
        Index("conversions_queued", "id", postgresql_where=text("state = 'queued'")),
        Index("conversions_state", "state"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    """``cnv_`` and a UUIDv7: ordering by id is ordering by creation."""
    state: Mapped[State] = mapped_column(server_default=text("'queued'"))
    stage: Mapped[str | None]
    progress: Mapped[float] = mapped_column(server_default=text("0"))
    """Of the whole conversion, in [0, 1]."""
    attempt: Mapped[int] = mapped_column(server_default=text("0"))
    """How many times a worker has started it. Results are written only by the holder of the current number."""
    workers_lost: Mapped[int] = mapped_column(server_default=text("0"))
    """How many deaths of its own process or of its worker point at it (jobs/suspicion.py)."""
    worker: Mapped[str | None]
    """Who runs it: host name and process id, for logs."""
    worker_id: Mapped[int | None]
    """The Worker that runs it."""
    waiting_for: Mapped[str | None]
    """The part of the service that is away and that it waits for: store or disk_space."""
    queue_job_id: Mapped[int | None]

    project_id: Mapped[str] = mapped_column(server_default=text("'default'"))
    name: Mapped[str | None]
    labels: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    priority: Mapped[int] = mapped_column(SmallInteger(), server_default=text("0"))
    """Among the waiting ones of its project: higher first."""
    timeout: Mapped[float | None]
    """Seconds that an attempt may take, where that is less than what the worker allows."""

    checkpoint_sha256: Mapped[str]
    """Empty until the file of ``source_uri`` was fetched."""
    source_uri: Mapped[str | None]
    """Where the file is fetched from; None: it was uploaded."""
    source_sha256: Mapped[str | None]
    """What it must be, where the client said so."""
    held_checkpoint: Mapped[str | None] = mapped_column(Computed(HELD, persisted=True))
    """The checkpoint while the conversion has not finished: it cannot be deleted then. Finished ones outlive theirs."""
    checkpoint_filename: Mapped[str | None]
    architecture: Mapped[str]
    architecture_options: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    recipe: Mapped[str | None]
    """Digest of the version, where the architecture is a recipe of the project."""
    target: Mapped[str]
    options: Mapped[dict[str, Any]]
    """TargetOptions as JSON, with every default filled in."""
    needs: Mapped[list[Any]] = mapped_column(server_default=text("'[]'"))
    """Names of what a worker must be able to do for it (targets/abilities.py)."""
    dedup_key: Mapped[str | None]
    probes_sha256: Mapped[str | None]
    """The client's own probes (npz) in the object store."""

    accept: Mapped[list[Any]] = mapped_column(server_default=text("""'["pass", "pass_with_notes"]'"""))
    """Verdicts that count as success."""
    verdict: Mapped[str | None]
    parity: Mapped[dict[str, Any] | None]
    """The output that lies nearest to its gate: probe, output, error, gate, ratio."""
    findings: Mapped[list[Any]] = mapped_column(server_default=text("'[]'"))
    """What the verdict rests on, as a list of Finding."""
    problem: Mapped[dict[str, Any] | None]
    """A Problem: why it did not succeed."""
    timings: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    """Seconds of each stage, by stage name."""
    peak_memory_bytes: Mapped[int | None]
    template: Mapped[dict[str, Any] | None]
    """How a template was used: a TemplateUse."""

    request_id: Mapped[str | None]
    """Of the request that made it: the log lines of its jobs repeat it."""
    publications: Mapped[list[Any]] = mapped_column(server_default=text("'[]'"))
    """A list of publication.Publication."""

    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    expired_at: Mapped[datetime | None]
    """When its files were given up by retention; the row stays readable."""


class ConversionFile(Table):
    """One file of a conversion. Its bytes lie in the object store under ``sha256``."""

    __tablename__ = "conversion_files"
    __table_args__ = (Index("conversion_files_object", "sha256"),)

    conversion_id: Mapped[str] = mapped_column(ForeignKey("conversions.id", ondelete="CASCADE"), primary_key=True)
    role: Mapped[str] = mapped_column(primary_key=True)
    """artifact, artifact_data, report or golden."""
    filename: Mapped[str]
    sha256: Mapped[str]
    bytes: Mapped[int]
    media_type: Mapped[str]
    crc32: Mapped[int | None]
    """Of the content, for bundles; written when first computed."""


class Event(Table):
    """One thing that happened to a conversion, in order of ``id``; what server-sent events are made from."""

    __tablename__ = "events"
    __table_args__ = (Index("events_conversion", "conversion_id", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    conversion_id: Mapped[str] = mapped_column(ForeignKey("conversions.id", ondelete="CASCADE"))
    type: Mapped[str]
    """state or progress."""
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Group(Table):
    """Several conversions that one request asked for."""

    __tablename__ = "groups"
    __table_args__ = (Index("groups_project", "project_id", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str]
    name: Mapped[str | None]
    labels: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    idempotency_key: Mapped[str | None] = mapped_column(unique=True)
    """The client's key within its project."""
    request_digest: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class GroupMember(Table):
    """One conversion of a group; an earlier one that answers may be in several."""

    __tablename__ = "group_members"
    __table_args__ = (Index("group_members_conversion", "conversion_id"),)

    group_id: Mapped[str] = mapped_column(ForeignKey("groups.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    conversion_id: Mapped[str] = mapped_column(ForeignKey("conversions.id", ondelete="CASCADE"))


class LogPart(Table):
    """A piece of what was said in the course of a conversion, in order of ``id``."""

    __tablename__ = "log_parts"
    __table_args__ = (Index("log_parts_conversion", "conversion_id", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    conversion_id: Mapped[str] = mapped_column(ForeignKey("conversions.id", ondelete="CASCADE"))
    attempt: Mapped[int]
    offset: Mapped[int]
    """Characters that were said before it, those included that are no longer kept."""
    text: Mapped[str]
    """Whole lines, scrubbed."""


class Webhook(Table):
    """A receiver that is told what happens to the conversions of a project, or to one of them."""

    __tablename__ = "webhooks"
    __table_args__ = (
        Index("webhooks_project", "project_id"),
        Index("webhooks_conversion", "conversion_id", postgresql_where=text("conversion_id is not null")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str]
    conversion_id: Mapped[str | None] = mapped_column(ForeignKey("conversions.id", ondelete="CASCADE"))
    """The one conversion that it is told of; None: all of the project."""
    name: Mapped[str | None]
    url: Mapped[str]
    events: Mapped[list[Any]]
    secrets: Mapped[list[Any]]
    """A list of webhook.Secret, the newest first."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    disabled_at: Mapped[datetime | None]
    """Since when it is told nothing more, because it answered that it is gone."""


class Delivery(Table):
    """A message for a webhook, and what became of the attempts to deliver it."""

    __tablename__ = "deliveries"
    __table_args__ = (Index("deliveries_webhook", "webhook_id", "id"), Index("deliveries_created", "created_at"))

    id: Mapped[str] = mapped_column(primary_key=True)
    """What the receiver knows the message by, however often it is sent."""
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    conversion_id: Mapped[str | None]
    event: Mapped[str]
    body: Mapped[str]
    """What is sent and signed: JSON."""
    state: Mapped[str] = mapped_column(server_default=text("'pending'"))
    """pending, delivered or failed."""
    tries: Mapped[int] = mapped_column(server_default=text("0"))
    """Since it was made, or asked for again."""
    attempts: Mapped[list[Any]] = mapped_column(server_default=text("'[]'"))
    """How the last ones ended: at, status, error, seconds."""
    queue_job_id: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    next_try_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class IdempotencyKey(Table):
    """A client's Idempotency-Key and what it led to."""

    __tablename__ = "idempotency_keys"

    key: Mapped[str] = mapped_column(primary_key=True)
    request_digest: Mapped[str]
    conversion_id: Mapped[str] = mapped_column(ForeignKey("conversions.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Template(Table):
    """A weight-free graph, or the fact that somebody is building it."""

    __tablename__ = "templates"

    key: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str]
    """building, ready or unsuitable."""
    reason: Mapped[str | None]
    """Why no template can serve this key, when unsuitable."""
    builder: Mapped[str]
    """The conversion that builds or built it. A builder that no longer runs has given it up."""
    builder_attempt: Mapped[int]
    object_sha256: Mapped[str | None] = mapped_column(index=True)
    bytes: Mapped[int | None]
    certificate: Mapped[dict[str, Any] | None]
    """A Certificate: what was proved of the graph."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    used_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Catalog(Table):
    """The architectures as a worker's children described them."""

    __tablename__ = "catalogs"

    digest: Mapped[str] = mapped_column(primary_key=True)
    entries: Mapped[list[Any]]
    """A list of ArchitectureDescription."""
    plugins: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    """Of each architecture that no library offers, the name of its plug-in."""
    broken: Mapped[list[Any]] = mapped_column(server_default=text("'[]'"))
    """A list of BrokenPlugin."""
    pending: Mapped[list[Any]] = mapped_column(server_default=text("'[]'"))
    """Names of plug-ins that were not described yet."""
    late: Mapped[list[Any]] = mapped_column(server_default=text("'[]'"))
    """Names of those that were not waited for any longer."""
    abilities: Mapped[list[Any]] = mapped_column(server_default=text("'[]'"))
    """Names of what the worker can do beside (targets/abilities.py)."""
    supervisor: Mapped[str | None]
    """Written by earlier versions."""
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """When a worker offered it last."""


class Layouts(Table):
    """The layouts of a plug-in's architectures."""

    __tablename__ = "layouts"

    source: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(primary_key=True)
    """The digest of the plug-in's source."""
    content: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Recipe(Table):
    """A version of a project's recipe: an architecture that is told as JSON (domain/recipe.py)."""

    __tablename__ = "recipes"

    project_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(primary_key=True)
    """sha256 of what it says."""
    asked: Mapped[str]
    """As it was asked for: JSON, whose order of members matters."""
    checked: Mapped[str | None]
    """A CheckedRecipe as JSON; None before it was built once."""
    description: Mapped[str | None]
    """The ArchitectureDescription as JSON."""
    layout: Mapped[bytes | None]
    """The document of its layout (architectures/known)."""
    problem: Mapped[dict[str, Any] | None]
    """A Problem: why it cannot be built. Such a version is none."""
    queue_job_id: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    registered_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """When it was asked for last: the name means the version that was asked for last."""


class SigningKey(Table):
    """An ed25519 key that statements were signed with."""

    __tablename__ = "signing_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    """sha256 of the public part, hexadecimal."""
    public: Mapped[bytes]
    seed: Mapped[bytes | None]
    """The private part; None: an operator keeps it, in a setting."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Worker(Table):
    """A worker that runs, or died and was not yet noticed."""

    __tablename__ = "workers"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """The queue's registration: what its entries name as their worker."""
    name: Mapped[str]
    """Host name and process id."""
    room: Mapped[str]
    """Name of its work directory, whose lock the kernel drops when it dies."""
    supervisor: Mapped[str | None]
    """The run of `recast serve` that keeps it running; None: it was started alone."""
    catalog: Mapped[str | None]
    """Digest of the Catalog that it offers; None before it has described its architectures."""
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """Its last sign of life."""
    draining: Mapped[bool] = mapped_column(server_default=text("false"))
    """It was told to stop; what is lost with it points at nobody."""
    gone: Mapped[bool] = mapped_column(server_default=text("false"))
    """Another process on its machine saw that it has ended."""
    confinement: Mapped[dict[str, Any] | None]
    """How its conversion processes are confined: ``in_force`` and ``missing``, each a word on every layer; None before
    the first one."""


class Death(Table):
    """A worker or a conversion process that died without a word, and what ran in the worker then."""

    __tablename__ = "deaths"
    __table_args__ = (Index("deaths_at", "at"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    worker_id: Mapped[int | None]
    """The worker that died; None: it was a process of one."""
    suspects: Mapped[list[Any]]
    """Ids of the conversions, and sha256 of the checkpoints being read."""


class UploadUnderWay(Table):
    """A file that is being sent, of a project that may send so many at once only."""

    __tablename__ = "uploads_under_way"
    __table_args__ = (Index("uploads_under_way_project", "project_id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str]
    until: Mapped[datetime]
    """When its place is free unless it was renewed: the process that received it may have died."""


class Identity(Table):
    """The one row that names this database; the store that belongs to it knows the name."""

    __tablename__ = "identity"

    id: Mapped[str] = mapped_column(primary_key=True)
    store_claimed_at: Mapped[datetime | None]
    """Since when a store carries the name: from then on none without it is used, let alone made."""


class MetricSum(Table):
    """What all workers have ever counted of one sample of a metric."""

    __tablename__ = "metric_sums"

    name: Mapped[str] = mapped_column(primary_key=True)
    labels: Mapped[str] = mapped_column(primary_key=True)
    """JSON with sorted keys."""
    value: Mapped[float]
