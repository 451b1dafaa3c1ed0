"""Client of a Recast service: convert PyTorch weights to verified artifacts."""

from recast_client.bundle import BundleDamaged, verify_bundle
from recast_client.client import AsyncClient, Client
from recast_client.errors import ConversionFailed, NotAccepted, RecastError, Unreachable
from recast_client.manifest import NoManifest, read_manifest
from recast_client.models import Artifact, Conversion, Event
from recast_client.statement import BadSignature

__all__ = [
    "Artifact",
    "AsyncClient",
    "BadSignature",
    "BundleDamaged",
    "Client",
    "Conversion",
    "ConversionFailed",
    "Event",
    "NoManifest",
    "NotAccepted",
    "RecastError",
    "Unreachable",
    "read_manifest",
    "verify_bundle",
]
