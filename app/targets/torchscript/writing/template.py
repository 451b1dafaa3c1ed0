"""A TorchScript template: every record of a traced or scripted archive but the data of its state dict."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from app.domain.errors import ExportFailed
from app.targets.request import ExportRequest
from app.targets.templating.archive_layout import Record
from app.targets.templating.archive_template import ArchiveTemplate
from app.targets.templating.pieces import Slot, weight_table
from app.targets.templating.recipe import Recipe, Weight
from app.targets.templating.reuse import against_reuse, against_reuse_at, refuse_baked_weight
from app.targets.templating.slots import TensorForm, separate_memory, state_forms
from app.targets.templating.structure import structure_digest
from app.targets.templating.tensor_bytes import tensor_bytes
from app.targets.torchscript.spec import TorchScriptOptions
from app.targets.torchscript.writing.archive import archive_records
from app.targets.torchscript.writing.exporter import CapturedTorchScript
from app.targets.torchscript.writing.script_tensors import ScriptTensor, script_tensors


class TorchScriptTemplate(ArchiveTemplate):
    KIND = "torchscript"

    def slots(self) -> Iterator[tuple[str, Recipe]]:
        """The recipe of every attribute that weights fill, by its path; a shared tensor under each of its paths."""
        for place, content, _ in self._tensors():
            if isinstance(content, Slot):
                yield place, content.recipe

    def own_tensors(self) -> Iterator[tuple[str, bytes]]:
        """The raw data of the template's own tensors: attributes by path, constants of the code as CONSTANTS.cN."""
        for place, content, tensor in self._tensors():
            if not isinstance(content, Slot):
                yield place, bytes(tensor_bytes(tensor.in_storage(content)))

    def _tensors(self) -> Iterator[tuple[str, bytes | Slot, ScriptTensor]]:
        contents = {record.name: record.content for record in self.records}
        for folder, prefix in (("data", ""), ("constants", "CONSTANTS.c")):
            pickled = contents.get(f"{folder}.pkl")
            for tensor in script_tensors(pickled) if isinstance(pickled, bytes) else ():
                yield f"{prefix}{tensor.path}", contents[f"{folder}/{tensor.storage.key}"], tensor


def build_template(captured: CapturedTorchScript, request: ExportRequest, path: Path) -> TorchScriptTemplate:
    """Make a template of a capture of ``request.module`` and write it to ``path``.

    With ``keep_debug`` it has the records and names that torch gave. Raises ExportFailed where the capture holds
    weights in a form that cannot be filled.
    """
    assert isinstance(request.options, TorchScriptOptions)
    against = _against_reuse(captured, request)
    _refuse_memory_of_weights(constants(captured.module), request.module)
    structure = structure_digest(request.module)
    separate_memory(request.module)
    contents = archive_records(captured.module, path, keep_debug=request.options.keep_debug)
    forms, groups = state_forms(request.module)
    slots = _slots(contents["data.pkl"], forms)
    kept = {name: content for name, content in contents.items() if name not in slots}
    refuse_baked_weight(_floats(kept), request.module)
    template = TorchScriptTemplate(
        path=path,
        method=captured.method,
        warnings=captured.warnings,
        structure=structure,
        weights=weight_table(slots.values(), forms, groups),
        records=tuple(Record(name, slots.get(name, content)) for name, content in contents.items()),
        against_reuse=against,
    )
    template.save()
    return template


def _against_reuse(captured: CapturedTorchScript, request: ExportRequest) -> str | None:
    if not captured.traced_with:
        return against_reuse(request, captured.module)
    return against_reuse_at(captured.traced_with, request)


def _slots(pickled: bytes, forms: Mapping[str, TensorForm]) -> dict[str, Slot]:
    """The slot of every record that holds a tensor of the state dict, by record name."""
    tensors = script_tensors(pickled)
    slots: dict[str, Slot] = {}
    for tensor in tensors:
        if tensor.path in forms:
            if tensor.form != forms[tensor.path] or not tensor.fills_storage:
                raise ExportFailed(f"{tensor.path} has another form in the archive than in the module", stage="export")
            name = f"data/{tensor.storage.key}"
            slots.setdefault(name, Slot(name, tensor.form, Weight(tensor.path)))
    for tensor in tensors:
        slot = slots.get(f"data/{tensor.storage.key}")
        if slot is not None and (tensor.form != slot.form or not tensor.fills_storage):
            raise ExportFailed(f"{tensor.path} is a part of the memory of a weight", stage="export")
    return slots


def _floats(kept: Mapping[str, bytes]) -> dict[str, Tensor]:
    """The float tensors that stay in the template: buffers outside the state dict, and constants of the code."""
    return {
        f"{folder}/{tensor.path}": tensor.in_storage(kept[f"{folder}/{tensor.storage.key}"])
        for folder in ("data", "constants")
        for tensor in script_tensors(kept.get(f"{folder}.pkl", b"N."))
        if f"{folder}/{tensor.storage.key}" in kept and "float" in tensor.storage.dtype
    }


def constants(module: torch.jit.ScriptModule) -> dict[str, Tensor]:
    """The float tensors that the code holds, on the memory that they were captured from."""
    graph: Any = module._c._get_method("forward").inlined_graph  # held here: nodes do not keep their graph alive
    found: dict[str, Tensor] = {}
    for number, node in enumerate(graph.findAllNodes("prim::Constant", recurse=True)):
        if node.hasAttribute("value") and node.kindOf("value") == "t" and node.t("value").is_floating_point():
            found[f"constant {number}"] = node.t("value")
    return found


def _refuse_memory_of_weights(found: Mapping[str, Tensor], module: nn.Module) -> None:
    """Raise ExportFailed if the code holds a weight's own memory, of whatever size."""
    state = {key: value for key, value in module.state_dict().items() if isinstance(value, Tensor) and value.numel()}
    owners = {tensor.untyped_storage().data_ptr(): key for key, tensor in state.items()}
    for tensor in found.values():
        key = owners.get(tensor.untyped_storage().data_ptr())
        if key is not None:
            raise ExportFailed(
                f"the exporter made a constant of the weight {key}",
                stage="export",
                hint="Use weights in forward as they are, without .data or .numpy().",
            )
