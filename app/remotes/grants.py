"""Which places outside may be read from or published to, by whom, and with which credentials: the operator's file.

A TOML file of tables ``[[remote]]``, which is read anew whenever it changes. What no table names is not reached.
"""

import ssl
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from app.domain.errors import InvalidRequest, SourceNotAllowed, Unavailable

SCHEMES = ("s3", "gs", "https", "http", "hf", "models", "oci", "mlflow")
PUBLISHABLE = ("s3", "gs", "oci", "mlflow")
LONGEST_URI = 2_000

Purpose = Literal["import", "publish"]


class Remote(BaseModel):
    """One ``[[remote]]``: a prefix of URIs and what is allowed below it."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    prefix: str
    """``s3://bucket/path/``; of a server of one's own for hf, models and mlflow, ``endpoint`` says where it is."""
    projects: tuple[str, ...] | None = None
    """Names or ids of those that may use it; left out: all."""
    allow: tuple[Purpose, ...] = ("import",)
    endpoint: str | None = None
    token_service: str | None = None
    """Of an OCI registry: how the URL of its token service begins, where that is of another host."""
    region: str = "us-east-1"
    internal: bool = False
    """Whether its host may have an address that is not public. Others that it leads to may not for that."""
    ca_file: Path | None = None
    """Certificates of authorities that its servers are known by, beside the usual ones."""
    credentials: dict[str, SecretStr] = Field(default_factory=dict)
    """``access_key_id``, ``secret_access_key``, ``session_token`` (s3); ``service_account_key`` (gs); ``token`` (https,
    hf, models, mlflow); ``username``, ``password`` (https, oci, models, mlflow)."""

    @field_validator("prefix")
    @classmethod
    def _known_scheme(cls, prefix: str) -> str:
        if urlsplit(prefix).scheme not in SCHEMES:
            raise ValueError(f"a prefix begins with one of {', '.join(SCHEMES)}")
        return prefix

    def internal_hosts(self, uri: str) -> tuple[str, ...]:
        """The host that is asked for a URI, where that may have an address that is not public."""
        host = urlsplit(self.endpoint or uri).hostname
        return (host,) if self.internal and host else ()

    def credential(self, name: str) -> str | None:
        found = self.credentials.get(name)
        return found.get_secret_value() if found else None

    def ssl_context(self) -> ssl.SSLContext:
        """Raises Unavailable where the file of certificates cannot be read."""
        context = ssl.create_default_context()
        if self.ca_file is not None:
            try:
                context.load_verify_locations(self.ca_file)
            except OSError:
                raise Unavailable("The certificates of a remote cannot be read; its operator has to look.") from None
        return context


class Grants:
    """The remotes of a file. ``own``: the URL of the service's own object store, which is nobody's to read or write."""

    def __init__(self, file: Path | None, own: str = "") -> None:
        self._file = file
        self._own = own.rstrip("/") if "://" in own else ""
        self._read: tuple[int, tuple[Remote, ...]] = (0, ())

    def find(self, uri: str, owners: Sequence[str], purpose: Purpose) -> Remote:
        """The remote with the longest prefix of a checked URI that one of ``owners``, the id and the name of a
        project, may use. Raises SourceNotAllowed.
        """
        if not (self._own and is_within(uri, self._own)):
            allowed = [
                remote
                for remote in self._remotes()
                if purpose in remote.allow
                and (remote.projects is None or set(owners) & set(remote.projects))
                and is_within(uri, remote.prefix)
            ]
            if allowed:
                return max(allowed, key=lambda remote: len(remote.prefix))
        verb = {"import": "read from", "publish": "published to"}[purpose]
        raise SourceNotAllowed(f"{without_query(uri)} is not among the places that may be {verb}.")

    def _remotes(self) -> tuple[Remote, ...]:
        if self._file is None:
            return ()
        try:
            changed = self._file.stat().st_mtime_ns
            if changed != self._read[0]:
                tables = tomllib.loads(self._file.read_text())
                self._read = changed, tuple(Remote.model_validate(table) for table in tables.get("remote", ()))
        except (OSError, ValueError, ValidationError) as error:
            raise Unavailable(f"The file of remotes is not usable: {type(error).__name__}.") from None
        return self._read[1]


def checked_uri(text: str) -> str:
    """A URI that means what it looks like. Raises InvalidRequest.

    No user or password, no fragment, no step to a directory above, nothing encoded that a path is made of.
    """
    try:
        parts = urlsplit(text)
        host = parts.hostname
    except ValueError:
        raise InvalidRequest("The URI is not well-formed.") from None
    if len(text) > LONGEST_URI or not text.isascii() or any(c <= " " or c in "\\\x7f" for c in text):
        raise InvalidRequest(f"A URI has at most {LONGEST_URI} visible ASCII characters.")
    if parts.scheme not in SCHEMES or text[: len(parts.scheme)] != parts.scheme:
        raise InvalidRequest(f"A URI begins with one of {', '.join(SCHEMES)}.")
    if parts.username is not None or parts.password is not None or (parts.fragment and parts.scheme != "hf"):
        raise InvalidRequest("A URI must have neither user, password nor fragment.")
    if host is not None and parts.scheme in ("https", "http") and parts.netloc != parts.netloc.lower():
        raise InvalidRequest("The host of a URI is written in lower case.")
    decoded = unquote(parts.path)
    steps = decoded.split("/")
    if any(step in (".", "..") for step in steps) or "\\" in decoded or decoded.count("/") != parts.path.count("/"):
        raise InvalidRequest("The path of a URI must not step upwards.")
    return text


def without_query(uri: str) -> str:
    """A URI as it may be shown: what follows its path may be a secret."""
    return uri.partition("?")[0]


def is_within(uri: str, prefix: str) -> bool:
    """Whether a URI lies below a prefix: a prefix that ends within a name is the whole name."""
    path = without_query(uri)
    rest = path[len(prefix) :]
    if path.startswith(prefix) and rest[:1] in ("@", ":") and "/" not in rest:
        return True  # a revision or a tag of it
    return path == prefix or path.startswith(prefix if prefix.endswith(("/", ":")) else prefix + "/")
