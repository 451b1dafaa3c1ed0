"""Every setting of the service, read from the environment (``RECAST_...``) at the top: cli and main."""

import base64
import ipaddress
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

GIB = 1024**3


def _directory(path: Path | None) -> Path | None:
    if path is not None and not path.is_dir():
        raise ValueError(f"there is no directory {path}")
    return path


def is_safe_issuer(url: str) -> bool:
    """Whether nobody on the way can answer in place of that URL: https, or plain http of this machine."""
    try:
        parts = urlsplit(url)
        return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname or ""))
    except ValueError:
        return False


def _issuer(url: str | None) -> str | None:
    if url is not None and not is_safe_issuer(url):
        raise ValueError(f"{url} is no https:// URL")
    return url


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _seed(key: SecretStr | None) -> SecretStr | None:
    """Raises ValueError for what is no private part of an ed25519 key."""
    if key is not None and len(base64.b64decode(key.get_secret_value(), validate=True)) != 32:
        raise ValueError("must be 32 bytes in base64: openssl rand -base64 32")
    return key


class Settings(BaseSettings):
    """Settings of api and worker. Sizes are in bytes, durations in seconds."""

    model_config = SettingsConfigDict(env_prefix="RECAST_", extra="ignore", frozen=True, env_parse_none_str="null")

    data_dir: Path = Field(
        Path("recast-data"),
        description="Directory of the embedded database, the local object store and temporary files.",
    )
    database_url: SecretStr | None = Field(
        None,
        description="postgresql:// URL of an external PostgreSQL. Unset: a private one under the data directory.",
    )
    worker_role: str | None = Field(
        None,
        min_length=1,
        description=(
            "Role of PostgreSQL that workers connect as, by a RECAST_DATABASE_URL of their own: api and `recast "
            "migrate` let it do what workers need and nothing else. Unset: workers connect as the api does."
        ),
    )
    worker_role_password: SecretStr | None = Field(
        None,
        min_length=1,
        description=(
            "Password that `recast migrate`, which alone is to be told it, gives that role, made where there is none. "
            "Unset: the role is there."
        ),
    )
    database_pool: int = Field(10, ge=2, description="Most connections that one process keeps to the database.")
    store_url: str | None = Field(
        None,
        description=(
            "URL of the object store: s3://bucket/prefix, gs://..., az://... (credentials by each cloud's usual "
            "variables), or a directory. Unset: the directory `objects` under the data directory."
        ),
    )

    host: str = Field("127.0.0.1", description="Address that the api listens on.")
    port: int = Field(8000, ge=0, le=65535, description="Port that the api listens on; 0 picks a free one.")
    allow_unauthenticated: bool = Field(
        False, description="Let everybody in who can reach the api, beyond loopback too: no key is required."
    )
    require_keys: bool = Field(
        False, description="Demand a key (`recast keys create`) on a loopback address too; beyond it one always is."
    )
    oidc_issuer: Annotated[str | None, AfterValidator(_issuer)] = Field(
        None,
        description=(
            "URL of an OpenID Connect issuer whose access tokens are accepted beside keys, exactly as they name it in "
            "`iss`. A key or token is then required on a loopback address too."
        ),
    )
    oidc_audience: str | None = Field(
        None, min_length=1, description="What `aud` of a token must name; required with an issuer."
    )
    oidc_project_claim: str = Field(
        "project",
        min_length=1,
        description="Claim of a token that names its project (name or id): a name, or a way such as `recast.project`.",
    )
    oidc_scope_claim: str = Field(
        "scope",
        min_length=1,
        description="Claim that lists its scopes, as words or a list: read, convert, admin, also as `recast:read`.",
    )
    plugins_dir: Annotated[Path | None, AfterValidator(_directory)] = Field(
        None, description="Directory of Python modules that register architectures (docs/plugins.md)."
    )
    max_upload_bytes: int = Field(16 * GIB, gt=0, description="Largest accepted checkpoint.")
    max_connections_per_client: int = Field(
        512, gt=0, description="Connections that one address may hold; a reverse proxy counts as one."
    )
    max_uploads_per_client: int = Field(
        64, gt=0, description="Uploads that one address may send at the same time before further ones get 429."
    )
    min_free_bytes: int = Field(
        1 * GIB,
        ge=0,
        description="Free space of the data directory's disk below which uploads are refused with 507.",
    )
    allowed_hosts: tuple[str, ...] | None = Field(
        None,
        description=(
            "Host names that requests may be addressed to, as a JSON list, beside localhost, 127.0.0.1 and ::1; others "
            "get 421. Unset: on a loopback address its own names; beyond it any where keys are required, else IP "
            "addresses alone."
        ),
    )
    cors_origins: tuple[str, ...] = Field(
        (),
        description=(
            "Origins whose pages may use the api from a browser, as a JSON list: "
            '["https://dashboard.example.com"]. Requests that other pages make are refused.'
        ),
    )
    remotes_file: Path | None = Field(
        None,
        description=(
            "TOML file of the places that files may be fetched from and published to, with their credentials "
            "(docs/remotes.md). Api and worker read it. Unset: none."
        ),
    )
    internal_hosts: tuple[str, ...] = Field(
        (),
        description=(
            "Host names, addresses and networks that webhooks and imports may reach although they are not public, as a "
            'JSON list: ["hooks.internal", "10.1.0.0/16"].'
        ),
    )
    max_queued: int = Field(
        10_000,
        gt=0,
        description=(
            "Conversions that may wait in the queue before new ones are refused with 429; a project that has less than "
            "its equal part of them waiting is taken in nevertheless."
        ),
    )

    worker_queues: tuple[Literal["conversions", "transfers"], ...] = Field(
        ("conversions", "transfers"),
        min_length=1,
        description=(
            "What a worker does, as a JSON list: `conversions`, which need no other machine than database and store; "
            "`transfers`, which are webhooks, fetching and publishing."
        ),
    )
    children: int = Field(2, ge=1, le=64, description="Conversions that one worker runs at the same time.")
    child_threads: int | None = Field(
        None,
        ge=1,
        le=256,
        description=(
            "Threads that one conversion computes with. Unset: its share of the cores among the conversions that run "
            "when it starts, so that a lone one has them all."
        ),
    )
    job_timeout: float = Field(1800, gt=0, description="Seconds after which a running conversion is stopped.")
    inspection_timeout: float = Field(120, gt=0, description="Seconds after which reading a checkpoint is stopped.")
    warm_templates: tuple[str, ...] = Field(
        (),
        description=(
            "Architectures whose templates a worker builds when it starts, for both targets with default options, as a "
            'JSON list: ["torchvision/resnet50"].'
        ),
    )
    memory_budget: int | None = Field(
        None,
        gt=0,
        description=(
            "Memory that all running conversions of one worker may use together; a job that would not fit waits, one "
            "that could never fit is refused. Unset: 80 % of what the machine (or its container) has."
        ),
    )
    child_memory_limit: int | None = Field(
        None,
        gt=0,
        description=(
            "Memory that one conversion and all that it starts may have beyond its checkpoint. Unset: what it was "
            "admitted with: its share of the memory budget or, where that is more, what it is estimated to need."
        ),
    )
    child_open_files: int = Field(1024, ge=64, description="Files that one conversion may hold open.")
    child_file_bytes: int = Field(64 * GIB, gt=0, description="Largest file that one conversion may write.")
    signing_key: Annotated[SecretStr | None, AfterValidator(_seed)] = Field(
        None,
        description=(
            "The ed25519 key that statements are signed with: 32 bytes in base64 (openssl rand -base64 32). Unset: one "
            "that is made with the first statement and kept in the database. Where it is set, secrets of webhooks are "
            "encrypted in the database with a key that follows from it."
        ),
    )
    require_sandbox: Literal["none", "network", "full"] = Field(
        "network",
        description=(
            "What of the confinement of conversion processes must be in force, or conversions are refused: `network`, "
            "that none reaches another machine or process; `full`, every layer; `none`. /readyz says what is in force."
        ),
    )
    max_attempts: int = Field(
        3, ge=1, description="Deaths of processes or workers that may point at one conversion before it ends `failed`."
    )
    worker_lost_after: float = Field(
        15,
        gt=2,
        description="Seconds without a heartbeat after which a worker counts as dead and its jobs run elsewhere.",
    )
    drain_timeout: float = Field(
        25,
        ge=0,
        description="Seconds that running conversions get after SIGTERM before they are handed back to the queue.",
    )

    retention_days: float | None = Field(
        30, gt=0, description="Days that a finished conversion and its files are kept; `null`: for ever."
    )
    upload_expiry: float = Field(
        86_400,
        ge=60,
        description="Seconds after its last byte at which an unfinished resumable upload is given up.",
    )
    orphan_grace: float = Field(
        3600, ge=60, description="Age in seconds from which a stored object that nothing refers to is deleted."
    )

    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="Form of log lines; auto is console on a terminal and json elsewhere."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe level that is logged."
    )

    @model_validator(mode="after")
    def _issuer_has_an_audience(self) -> Self:
        """Without one, tokens that the issuer made for other services would be accepted."""
        if self.oidc_issuer is not None and self.oidc_audience is None:
            raise ValueError("RECAST_OIDC_ISSUER needs RECAST_OIDC_AUDIENCE")
        return self

    @property
    def signing_seed(self) -> bytes | None:
        """The private part of the configured key, 32 bytes; None where the service keeps one itself."""
        return None if self.signing_key is None else base64.b64decode(self.signing_key.get_secret_value())

    @property
    def retention(self) -> timedelta | None:
        """How long a finished conversion and its files are kept; None: for ever."""
        return None if self.retention_days is None else timedelta(days=self.retention_days)

    @property
    def uploads_kept(self) -> timedelta:
        """How long an unfinished upload is kept after its last byte."""
        return timedelta(seconds=self.upload_expiry)

    @property
    def keys_required(self) -> bool:
        """Whether a request must prove itself with a key or token."""
        wanted = self.require_keys or (self.oidc_issuer is not None and not self.allow_unauthenticated)
        return wanted or not (self.on_loopback or self.allow_unauthenticated)

    @property
    def on_loopback(self) -> bool:
        """Whether the api can be reached from this machine alone."""
        return _is_loopback(self.host)

    @property
    def work_dir(self) -> Path:
        """Where running conversions keep their files; emptied when a worker starts."""
        return self.data_dir / "work"

    @property
    def objects_location(self) -> str:
        """The object store's URL or directory, with the default filled in."""
        return self.store_url or str(self.data_dir / "objects")
