"""An ONNX template: the serialised graph without its weights, and the slots that weights fill."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from app.targets.onnx.writing.protobuf import MODEL_GRAPH, len_field
from app.targets.request import CheckpointFile
from app.targets.templating import recipe as recipes
from app.targets.templating.container import FORMAT_VERSION, BrokenTemplate, read_container, write_container
from app.targets.templating.pieces import Slot
from app.targets.templating.slots import TensorForm, WeightTable
from app.targets.templating.tensor_bytes import ONNX_DTYPES, dtype_of, tensor_bytes

KIND = "onnx"


@dataclass(frozen=True)
class OnnxTemplate:
    """``model_head``, ``graph_head``, ``graph_tail``, ``model_tail`` are serialised protobuf fields: those of
    ModelProto before and after ``graph``, those of GraphProto before and after the slots' ``initializer`` fields.
    """

    path: Path
    exporter: str
    warnings: tuple[str, ...]
    structure: str
    weights: WeightTable
    slots: tuple[Slot, ...]
    constants: Mapping[str, Tensor]
    """Operands of recipes that are neither weights nor attributes."""
    model_head: bytes
    graph_head: bytes
    graph_tail: bytes
    model_tail: bytes
    against_reuse: str | None = None
    """Why other weights may not use it, in words; such a template is not kept, so the file does not say."""
    of_weights: str | None = None
    """Why it serves only the weights that it was made with, in words; what is made with others may serve all."""
    checkpoint: CheckpointFile | None = None
    """The uploaded file that its artifact points into; a fact of one conversion, of which the file says nothing."""

    def graph_without_weights(self) -> bytes:
        """A serialised ModelProto that lacks the slots' initializers: names, axes, opset, IR version can be read."""
        return self.model_head + len_field(MODEL_GRAPH, self.graph_head + self.graph_tail) + self.model_tail

    def with_slots_as_inputs(self) -> onnx.ModelProto:
        """The graph whose inputs are its own and, behind them, its slots in their order."""
        model: onnx.ModelProto = onnx.ModelProto.FromString(self.graph_without_weights())
        model.graph.input.extend(
            onnx.helper.make_tensor_value_info(slot.name, ONNX_DTYPES[slot.form.dtype], slot.form.shape)
            for slot in self.slots
        )
        return model

    def own_tensors(self) -> Iterator[tuple[str, bytes]]:
        """The raw data of the template's own tensors: initializers by name, attributes by node output and attribute."""
        pending = [onnx.ModelProto.FromString(self.graph_without_weights()).graph]
        while pending:
            graph = pending.pop()
            yield from ((tensor.name, _raw(tensor)) for tensor in graph.initializer)
            for node in graph.node:
                for attribute in node.attribute:
                    yield from _in_attribute(node, attribute)
                    pending += [*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs]


def _in_attribute(node: onnx.NodeProto, attribute: onnx.AttributeProto) -> Iterator[tuple[str, bytes]]:
    constant = node.op_type == "Constant"
    value = node.output[0] if node.output else node.name
    place = value if constant else f"{value}:{attribute.name}"
    if attribute.HasField("t"):
        yield place, _raw(attribute.t)
    yield from ((place, _raw(tensor)) for tensor in attribute.tensors)
    if attribute.floats:
        yield place, np.array(attribute.floats, np.float32).tobytes()
    elif constant and attribute.name == "value_float":
        yield place, np.float32(attribute.f).tobytes()


def _raw(tensor: onnx.TensorProto) -> bytes:
    if tensor.data_type == onnx.TensorProto.STRING:
        return b"".join(tensor.string_data)
    return bytes(onnx.numpy_helper.to_array(tensor).tobytes())


def save_onnx_template(template: OnnxTemplate) -> None:
    """Write the template to its path."""
    header: dict[str, Any] = {
        "kind": KIND,
        "version": FORMAT_VERSION,
        "exporter": template.exporter,
        "warnings": list(template.warnings),
        "structure": template.structure,
        "weights": template.weights.to_json(),
        "slots": [
            {"name": slot.name, **slot.form.to_json(), "recipe": recipes.to_json(slot.recipe)}
            for slot in template.slots
        ],
        "constants": {name: TensorForm.of(tensor).to_json() for name, tensor in template.constants.items()},
    }
    blobs = {name: getattr(template, name) for name in ("model_head", "graph_head", "graph_tail", "model_tail")}
    blobs |= {f"constant:{name}": bytes(tensor_bytes(tensor)) for name, tensor in template.constants.items()}
    write_container(template.path, header, blobs)


def load_onnx_template(path: Path) -> OnnxTemplate:
    """Read a template file. Raises BrokenTemplate for a file of another kind or version, or a damaged one."""
    header, blobs = read_container(path)
    if (header.get("kind"), header.get("version")) != (KIND, FORMAT_VERSION):
        raise BrokenTemplate(f"{path.name} is a template of kind {header.get('kind')}, version {header.get('version')}")
    return OnnxTemplate(
        path=path,
        exporter=header["exporter"],
        warnings=tuple(header["warnings"]),
        structure=header["structure"],
        weights=WeightTable.from_json(header["weights"]),
        slots=tuple(
            Slot(value["name"], TensorForm.from_json(value), recipes.from_json(value["recipe"]))
            for value in header["slots"]
        ),
        constants={
            name: torch.frombuffer(bytearray(blobs[f"constant:{name}"]), dtype=dtype_of(form["dtype"])).reshape(
                form["shape"]
            )
            for name, form in header["constants"].items()
        },
        model_head=blobs["model_head"],
        graph_head=blobs["graph_head"],
        graph_tail=blobs["graph_tail"],
        model_tail=blobs["model_tail"],
    )
