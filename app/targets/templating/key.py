"""The key of a template: a hash of everything that can shape its graph, and of nothing else."""

from collections.abc import Mapping
from hashlib import sha256
from importlib.metadata import version
from typing import Any

from app.domain.architecture import ArchitectureDescription, Signature
from app.domain.conversion import CommonOptions, TargetName
from app.targets.specs import SPECS
from app.targets.templating.container import FORMAT_VERSION, canonical_json

TOOLCHAIN = ("torch", "onnx", "onnxscript", "onnx_ir", "onnxruntime")

WITHOUT_EFFECT = frozenset(
    {
        "strict",
        "allow_missing",
        "prefix",
        "checkpoint_key",
        "on_mismatch",
        "verification",
        "measure",
        "external_data",
        "checkpoint_name",
        "check_trace",
        "embed",
    }
)
"""Options that say how weights are read, how the artifact is judged or where its bytes lie, not what its graph is."""


def toolchain_versions(target: TargetName) -> dict[str, str]:
    """Version of every library that shapes a graph of that target, by distribution name."""
    own = SPECS[target].requires
    return {name: version(name) for name in (*TOOLCHAIN, *((own,) if own else ()))}


def template_key(
    description: ArchitectureDescription,
    architecture_options: Mapping[str, Any],
    options: CommonOptions,
    signature: Signature,
    toolchain: Mapping[str, str] | None = None,
) -> str:
    """sha256 in hexadecimal. ``signature`` is the one exported with, after the options narrowed it."""
    return sha256(
        canonical_json(
            {
                "format": FORMAT_VERSION,
                "architecture": description.name,
                "library": description.library,
                "library_version": description.library_version,
                "source_digest": description.source_digest,
                "architecture_options": dict(architecture_options),
                "options": options.model_dump(mode="json", exclude=set(WITHOUT_EFFECT)),
                "signature": signature.model_dump(mode="json", exclude={"inputs": {"__all__": {"preprocessing"}}}),
                "toolchain": dict(toolchain or toolchain_versions(options.target)),
                **({"weights": "as uploaded"} if options.over_checkpoint else {}),
            }
        )
    ).hexdigest()
