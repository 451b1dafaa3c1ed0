"""A TorchScript template: every record of a traced or scripted archive but the data of its state dict."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from app.domain.errors import ExportFailed
from app.targets.request import ExportRequest
from app.targets.templating.archive_layout import Record, lay_out_archive
from app.targets.templating.container import FORMAT_VERSION, BrokenTemplate, read_container, write_container
from app.targets.templating.filling import WrittenFile, write_pieces
from app.targets.templating.pieces import Slot, weight_table
from app.targets.templating.proof import holds
from app.targets.templating.recipe import Recipe, Weight
from app.targets.templating.reuse import against_reuse, refuse_baked_weight
from app.targets.templating.slots import TensorForm, WeightTable, check_fit, state_forms
from app.targets.templating.structure import check_structure, structure_digest
from app.targets.templating.tensor_bytes import tensor_bytes
from app.targets.torchscript.spec import TorchScriptOptions
from app.targets.torchscript.writing.archive import archive_records
from app.targets.torchscript.writing.exporter import CapturedTorchScript
from app.targets.torchscript.writing.script_tensors import ScriptTensor, script_tensors

KIND = "torchscript"


@dataclass(frozen=True)
class TorchScriptTemplate:
    """``records`` are the archive's, in order; the data of a slot's record is the tensor of its state-dict key."""

    path: Path
    method: str
    warnings: tuple[str, ...]
    structure: str
    weights: WeightTable
    records: tuple[Record, ...]
    against_reuse: str | None = None
    """Why other weights may not use it, in words; such a template is not kept, so the file does not say."""

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
    against = against_reuse(request, captured.module if captured.method == "script" else None)
    _refuse_memory_of_weights(constants(captured.module), request.module)
    structure = structure_digest(request.module)
    _separate(request.module)
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
    _save(template)
    return template


def _separate(module: nn.Module) -> None:
    """Give every tensor memory of its own, laid out in rows: one record for each, whatever file the weights are from.

    Tensors of a checkpoint may lie in one storage; those of tied parameters are one tensor and stay one. The captured
    module shares its tensors with this one.
    """
    tensors = {id(t): t for t in module.state_dict(keep_vars=True).values() if isinstance(t, Tensor)}
    shared = Counter(tensor.untyped_storage().data_ptr() for tensor in tensors.values())
    for tensor in tensors.values():
        storage = tensor.untyped_storage()
        if shared[storage.data_ptr()] > 1 or storage.nbytes() != tensor.nbytes or not tensor.is_contiguous():
            tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)


def write_torchscript(
    template: TorchScriptTemplate, tensors: Mapping[str, Tensor], path: Path, *, module: nn.Module | None = None
) -> WrittenFile:
    """Write the archive that carries ``tensors`` (state-dict key to CPU tensor) to ``path``.

    Equal tensors give equal bytes. ``module`` is the module loaded for this job: its structure must be the one that was
    captured. Raises TemplateMismatch if it is not, or if the tensors do not fill every slot exactly.
    """
    check_fit(template.weights, tensors)
    if module is not None:
        check_structure(template.structure, module)
    return write_pieces(lay_out_archive(template.records), tensors, {}, path)


def same_archive(template: TorchScriptTemplate, artifact: Path) -> bool:
    """Whether ``artifact`` is what the template writes, whatever fills the slots."""
    return holds(lay_out_archive(template.records), artifact)


def load_torchscript_template(path: Path) -> TorchScriptTemplate:
    """Read a template file. Raises BrokenTemplate for a file of another kind or version, or a damaged one."""
    header, blobs = read_container(path)
    if (header.get("kind"), header.get("version")) != (KIND, FORMAT_VERSION):
        raise BrokenTemplate(f"{path.name} is a template of kind {header.get('kind')}, version {header.get('version')}")

    def record(entry: Mapping[str, Any]) -> Record:
        name = entry["name"]
        if "weight" in entry:
            return Record(name, Slot(name, TensorForm.from_json(entry), Weight(entry["weight"])))
        return Record(name, blobs[name])

    return TorchScriptTemplate(
        path=path,
        method=header["method"],
        warnings=tuple(header["warnings"]),
        structure=header["structure"],
        weights=WeightTable.from_json(header["weights"]),
        records=tuple(map(record, header["records"])),
    )


def _save(template: TorchScriptTemplate) -> None:
    entries: list[dict[str, Any]] = []
    blobs: dict[str, bytes] = {}
    for record in template.records:
        if isinstance(record.content, bytes):
            entries.append({"name": record.name})
            blobs[record.name] = record.content
        else:
            assert isinstance(record.content.recipe, Weight)
            entries.append({"name": record.name, **record.content.form.to_json(), "weight": record.content.recipe.key})
    header = {
        "kind": KIND,
        "version": FORMAT_VERSION,
        "method": template.method,
        "warnings": list(template.warnings),
        "structure": template.structure,
        "weights": template.weights.to_json(),
        "records": entries,
    }
    write_container(template.path, header, blobs)


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
