"""What an artifact says of itself, wherever it is copied: written into the file, beside the graph.

Only what follows from the request: equal requests give equal bytes. When it was converted, under which id and with
which verdict stands in the statement (delivery/statement.py), which names the file by its sha256.
"""

import importlib.metadata
import json
from typing import Any

from app.conversion.checkpoint import OpenedCheckpoint
from app.conversion.checkpoint.class_names import named_by
from app.conversion.job import ConversionJob
from app.domain.architecture import ArchitectureDescription, Signature
from app.domain.conversion import OWN_FACTS
from app.targets.request import CheckpointFile


def facts_of(
    job: ConversionJob,
    description: ArchitectureDescription,
    opened: OpenedCheckpoint,
    signature: Signature,
    checkpoint: CheckpointFile | None = None,
) -> dict[str, str]:
    """Name to text, JSON where it is more than a word. ``signature``: inputs and outputs as they stand in the file."""
    told: dict[str, Any] = {
        "version": importlib.metadata.version("recast-service"),
        "architecture": job.architecture,
        "architecture_options": job.architecture_options,
        "library": f"{description.library} {description.library_version}",
        "options": job.options.model_dump(mode="json", exclude_defaults=True, exclude={"embed", "target"}),
        "weights_sha256": job.checkpoint_sha256,
        "weights_file": checkpoint.name if checkpoint is not None else "",
        "inputs": _contract(signature),
        "class_names": named_by(job.architecture_options.get("id2label") or {}) or opened.class_names,
    }
    facts = {OWN_FACTS + name: _text(value) for name, value in told.items() if value not in ({}, (), "")}
    return dict(sorted({**facts, **job.options.embed}.items()))


def _contract(signature: Signature) -> list[dict[str, Any]]:
    """Name, dtype, shape and range of each input, and the sizes that its symbolic axes may take."""
    axes = {axis.name: axis.model_dump(mode="json", exclude={"name", "sample"}) for axis in signature.axes}
    return [
        {
            "name": spec.name,
            "dtype": spec.dtype,
            "shape": list(spec.shape),
            "values": spec.distribution.model_dump(mode="json"),
            "axes": {axis: axes[axis] for axis in spec.shape if isinstance(axis, str) and axis in axes},
        }
        for spec in signature.inputs
    ]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, separators=(",", ":"))
