"""A downloaded bundle against its own manifest."""

import hashlib
import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recast_client.statement import signed_statement

MANIFEST, STATEMENT = "manifest.json", "statement.json"
BLOCK = 1 << 20


class BundleDamaged(ValueError):
    """The archive is no bundle, or a member is not what the manifest says."""


def verify_bundle(path: str | Path, keys: Iterable[str] | None = None) -> dict[str, Any]:
    """The manifest of a bundle whose every member has the size and sha256 that it says. Raises BundleDamaged.

    ``keys``: public keys of the service in base64 (``Client.statement_keys``, or kept from an earlier day). Where they
    are given, one of them must have signed the bundle's statement, and that must be of this artifact; BadSignature
    otherwise. It needs ``pip install recast-client[verify]`` and no network.

    Whether the artifact also computes its golden outputs is shown by the bundle's own check.py, or `recast verify`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            manifest: dict[str, Any] = json.loads(archive.read(MANIFEST))
            members = {member["name"]: member for member in manifest["members"]}
            if sorted(archive.namelist()) != sorted([*members, MANIFEST]):
                raise BundleDamaged("The archive has other members than its manifest lists.")
            for name, member in members.items():
                if _sha256(archive, name) != member["sha256"] or archive.getinfo(name).file_size != member["bytes"]:
                    raise BundleDamaged(f"{name} is not what the manifest says; download the bundle again.")
            if keys is not None:
                artifact = next(m for m in members.values() if m["role"] == "artifact")
                signed_statement(archive.read(STATEMENT), keys, artifact["sha256"])
    except (zipfile.BadZipFile, KeyError, TypeError, json.JSONDecodeError) as error:
        raise BundleDamaged(f"{path} is not a bundle of Recast: {error}") from error
    return manifest


def _sha256(archive: zipfile.ZipFile, name: str) -> str:
    digest = hashlib.sha256()
    with archive.open(name) as member:
        while block := member.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
