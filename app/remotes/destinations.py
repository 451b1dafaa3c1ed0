"""Where a conversion is published to: a bucket laid out for Triton, an OCI registry, an MLflow registry.

Publishing again what is there already changes nothing and gives the same receipt.
"""

import json
import re
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import ObjectStore

from app.domain.errors import InvalidRequest, PublishFailed
from app.domain.publication import Publication
from app.remotes.buckets import BUCKET, open_bucket
from app.remotes.egress import Egress
from app.remotes.grants import PUBLISHABLE, Remote, checked_uri
from app.remotes.http import Interrupted
from app.remotes.mlflow import register_model
from app.remotes.oci import push
from app.remotes.published import Model, PublishedFile
from app.remotes.triton import triton_config

PART = 16 << 20
MOST_VERSIONS_TRIED = 20
BACKEND = re.compile(r'^\s*backend\s*:\s*"([^"]*)"', re.MULTILINE)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
CLAIM = "recast.json"
"""In the directory of a version: which conversion it is of. Who writes it first has the version."""


def checked_publication(told: Any) -> Publication:
    """What a request says of one place: a URI, or ``{uri, name, version}``. Raises InvalidRequest."""
    members = {"uri": told} if isinstance(told, str) else told
    if not isinstance(members, dict) or set(members) - {"uri", "name", "version"}:
        raise InvalidRequest("A place to publish to is a URI, or an object of uri, name and version.")
    uri, name, version = members.get("uri"), members.get("name"), members.get("version")
    if not isinstance(uri, str) or uri.partition(":")[0] not in PUBLISHABLE:
        raise InvalidRequest("A place to publish to begins with s3:, gs:, oci: or mlflow:.")
    checked_uri(uri)
    if name is not None and not (isinstance(name, str) and NAME.fullmatch(name)):
        raise InvalidRequest("The name of a model has 1 to 100 letters, digits, dots, hyphens and underscores.")
    if version is not None and not (isinstance(version, int) and not isinstance(version, bool) and 0 < version < 2**31):
        raise InvalidRequest("version must be a positive number.")
    return Publication(uri=uri, name=name, version=version)


async def publish(publication: Publication, model: Model, remote: Remote, egress: Egress) -> dict[str, Any]:
    """Put a model where it is to be; gives the receipt. Raises PublishFailed, Interrupted, AddressNotAllowed."""
    scheme = urlsplit(publication.uri).scheme
    guard = egress.admitting(remote.internal_hosts(publication.uri))
    if scheme == "oci":
        return await push(publication.uri, model, remote, guard)
    if scheme == "mlflow":
        return await register_model(publication.uri, model, remote, guard)
    return await _to_bucket(publication, model, remote, guard)


async def _to_bucket(publication: Publication, model: Model, remote: Remote, egress: Egress) -> dict[str, Any]:
    """``prefix/name/version/model.onnx`` with ``prefix/name/config.pbtxt``, as Triton's model repositories are."""
    parts = urlsplit(publication.uri)
    if not BUCKET.fullmatch(parts.netloc):
        raise PublishFailed(f"{parts.netloc!r} is no name of a bucket.")
    if model.serving.triton_backend is None:
        raise PublishFailed(f"Files of {model.target} are not laid out for Triton.")
    bucket = open_bucket(parts.scheme, parts.netloc, remote, egress)
    name = publication.name or model.default_name
    folder = "/".join(filter(None, (parts.path.strip("/"), name)))
    try:
        await _refuse_another_backend(bucket, folder, model)
        version = await _claim(bucket, folder, model, publication.version)
        here = f"{folder}/{version}"
        data = model.file("artifact_data")
        if data is not None:
            await _put(bucket, f"{here}/{data.filename}", data)
        place = f"{here}/model{PurePosixPath(model.artifact.filename).suffix}"
        await _put(bucket, place, model.artifact)
        config = await _create(bucket, f"{folder}/config.pbtxt", triton_config(name, model).encode())
    except (obstore.exceptions.PermissionDeniedError, obstore.exceptions.UnauthenticatedError):
        raise PublishFailed("The store does not let this be written.") from None
    except FileNotFoundError:
        raise PublishFailed(f"There is no bucket {parts.netloc!r}.") from None
    except (BaseError, OSError) as error:
        raise Interrupted(f"{type(error).__name__}: {str(error).splitlines()[0][:200]}") from None
    root = f"{parts.scheme}://{parts.netloc}"
    return {
        "uri": f"{root}/{place}",
        "name": name,
        "version": version,
        "sha256": model.artifact.sha256,
        "config": f"{root}/{folder}/config.pbtxt",
        "config_kept": not config,
    }


async def _refuse_another_backend(bucket: ObjectStore, folder: str, model: Model) -> None:
    """All versions of a model of Triton's are run by one backend. Raises PublishFailed."""
    try:
        found = await obstore.get_async(bucket, f"{folder}/config.pbtxt")
        config = bytes(await found.bytes_async()).decode(errors="replace")
    except FileNotFoundError:
        return
    told = BACKEND.search(config)
    if told is not None and told[1] != model.serving.triton_backend:
        raise PublishFailed(
            f"{folder.rpartition('/')[2]} is a model of another backend.", hint="Give this one another name."
        )


async def _claim(bucket: ObjectStore, folder: str, model: Model, wanted: int | None) -> int:
    """The version of this conversion: the one that it has, the one that is wanted, or the next that is free."""
    taken = await _versions(bucket, folder)
    for version in sorted(taken, reverse=True)[:MOST_VERSIONS_TRIED]:
        if wanted in (None, version) and await _claimed_by(bucket, folder, version) == model.conversion_id:
            return version
    first = wanted or max(taken, default=0) + 1
    claim = json.dumps({**model.facts(), "conversion": model.conversion_id}, indent=1).encode()
    for version in range(first, first + (1 if wanted else MOST_VERSIONS_TRIED)):
        if version not in taken and await _create(bucket, f"{folder}/{version}/{CLAIM}", claim):
            return version
    raise PublishFailed(f"Version {first} of {folder.rpartition('/')[2]} is there already, of another conversion.")


async def _versions(bucket: ObjectStore, folder: str) -> set[int]:
    found = await obstore.list_with_delimiter_async(bucket, prefix=folder)
    names = [prefix.rstrip("/").rpartition("/")[2] for prefix in found["common_prefixes"]]
    return {int(name) for name in names if name.isdigit() and len(name) < 10}


async def _claimed_by(bucket: ObjectStore, folder: str, version: int) -> str | None:
    try:
        found = await obstore.get_async(bucket, f"{folder}/{version}/{CLAIM}")
        told = json.loads(bytes(await found.bytes_async()))
    except (FileNotFoundError, ValueError):
        return None
    return str(told.get("conversion")) if isinstance(told, dict) else None


async def _create(bucket: ObjectStore, path: str, content: bytes) -> bool:
    """Write a small object unless it is there; gives whether it was written."""
    try:
        await obstore.put_async(bucket, path, content, mode="create", use_multipart=False)
    except AlreadyExistsError:
        return False
    return True


async def _put(bucket: ObjectStore, path: str, file: PublishedFile) -> None:
    await obstore.put_async(bucket, path, file.open(), chunk_size=PART)
