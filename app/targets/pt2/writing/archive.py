"""The records of a ``.pt2`` archive, the same for the same program, without pickles.

``torch.export.save`` keeps the sample inputs as a pickle, source locations of the server in the metadata of every node,
and the wrapper's name before every key. All three are taken out here. The record of sample inputs is then empty, which
torch.export reads as none (torch/_export/serde/serialize.py, ExportedProgramDeserializer).
"""

import json
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from app.domain.errors import ExportFailed
from app.targets.capturing.flat_module import PREFIX
from app.targets.capturing.quiet import collected

MODEL = "models/model.json"
WEIGHTS, CONSTANTS = "data/weights/", "data/constants/"
_WEIGHT = f"{WEIGHTS}weight_"
CONFIGS = {WEIGHTS: f"{WEIGHTS}model_weights_config.json", CONSTANTS: f"{CONSTANTS}model_constants_config.json"}
"""Which tensor lies in which record, for each folder of records."""
_NAMES = frozenset({"parameter_name", "buffer_name", "tensor_constant_name"})


def archive_records(program: ExportedProgram, beside: Path, *, keep_debug: bool) -> dict[str, bytes]:
    """Content of every record below the root folder, in the order in which the archive shall hold them.

    Records of weights, which slots will fill, are left empty. ``beside`` is where room on disk is. Raises ExportFailed
    where torch would pickle a tensor or an object.
    """
    program.example_inputs = None
    with tempfile.TemporaryDirectory(dir=beside.parent, prefix="pt2-") as scratch, collected():
        saved = Path(scratch) / "archive.pt2"
        torch.export.save(program, str(saved))
        with zipfile.ZipFile(saved) as archive:
            names = {info.filename.partition("/")[2]: info for info in archive.infolist()}
            records = {name: b"" if name.startswith(_WEIGHT) else archive.read(info) for name, info in names.items()}
    records.pop(".data/serialization_id", None)
    for config in CONFIGS.values():
        records[config] = _rewritten(records[config], _without_prefix_in_config)
    return {**records, MODEL: _rewritten(records[MODEL], lambda model: _program(model, keep_debug=keep_debug))}


def _rewritten(content: bytes, change: Callable[[Any], Any]) -> bytes:
    return json.dumps(change(json.loads(content)), separators=(",", ":")).encode()


def _without_prefix_in_config(table: dict[str, Any]) -> dict[str, Any]:
    pickled = [name for name, entry in table["config"].items() if entry["use_pickle"]]
    if pickled:
        raise ExportFailed(
            f"torch.export.save would pickle {', '.join(pickled[:5])}",
            stage="export",
            hint="Use plain tensors: no tensor subclasses, no script objects.",
        )
    return {**table, "config": {name.removeprefix(PREFIX): entry for name, entry in table["config"].items()}}


def _program(model: dict[str, Any], *, keep_debug: bool) -> dict[str, Any]:
    """The program with keys as the architecture names them and nothing that tells of this server."""
    graph_module = model["graph_module"]
    if not keep_debug:
        graph_module["module_call_graph"] = graph_module["module_call_graph"][:1]
    changed: dict[str, Any] = _walked(model, keep_debug=keep_debug)
    return changed


def _walked(value: Any, *, keep_debug: bool) -> Any:
    if isinstance(value, list):
        return [_walked(item, keep_debug=keep_debug) for item in value]
    if not isinstance(value, dict):
        return value
    node = "target" in value and "metadata" in value
    changed: dict[str, Any] = {}
    for name, item in value.items():
        if name in _NAMES and isinstance(item, str):
            changed[name] = item.removeprefix(PREFIX)
        elif node and name == "metadata" and not keep_debug:
            changed[name] = {}
        else:
            changed[name] = _walked(item, keep_debug=keep_debug)
    return changed
