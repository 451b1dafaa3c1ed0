"""From an ONNX template to the graph that OpenVINO makes of it, without weights.

While OpenVINO translates, every slot is an input of the graph, so nothing that it does can depend on a weight, fold or
rename one. Afterwards each of these inputs is written as a constant that lies in the slot's place of the .bin.
"""

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from app.domain.errors import ExportFailed
from app.targets.capturing.quiet import first_lines
from app.targets.onnx.writing.template import OnnxTemplate
from app.targets.openvino.library import openvino
from app.targets.templating.pieces import Slot

ALIGNMENT = 64
"""Bytes: that of a line of the processor's cache, so that constants can be used where they are mapped."""
_ELEMENTS = {
    "float64": "f64",
    "float32": "f32",
    "float16": "f16",
    "bfloat16": "bf16",
    "float8_e4m3fn": "f8e4m3",
    "float8_e5m2": "f8e5m2",
    "int64": "i64",
    "int32": "i32",
    "int16": "i16",
    "int8": "i8",
    "uint64": "u64",
    "uint32": "u32",
    "uint16": "u16",
    "uint8": "u8",
    "bool": "boolean",
}
"""OpenVINO's name of each dtype of a slot."""
_COUNTED = re.compile(r".*_\d+")
"""Names that OpenVINO numbers by what the process made before."""


@dataclass(frozen=True)
class OpenVinoGraph:
    """``xml`` places every constant; ``own`` are the bytes of those that no weight fills, at the head of the .bin."""

    xml: bytes
    own: bytes
    slots: tuple[Slot, ...]
    """Those that the graph reads, in the order of their places."""


def translated(template: OnnxTemplate, beside: Path) -> OpenVinoGraph:
    """``beside`` is where room on disk is. Raises ExportFailed where OpenVINO lacks an operator."""
    with tempfile.TemporaryDirectory(dir=beside.parent, prefix="openvino-") as scratch:
        source, xml, own = (Path(scratch) / name for name in ("graph.onnx", "graph.xml", "graph.bin"))
        source.write_bytes(template.with_slots_as_inputs().SerializeToString())
        try:
            library = openvino()
            library.serialize(library.Core().read_model(str(source)), str(xml), str(own))
        except Exception as refusal:
            raise ExportFailed(
                f"OpenVINO cannot read the ONNX graph: {first_lines(str(refusal))}", stage="export"
            ) from refusal
        net, constants = ElementTree.parse(xml).getroot(), own.read_bytes()
    slots = _placed(net, {slot.name: slot for slot in template.slots}, len(constants))
    _number_anew(net, {slot.name for slot in slots})
    return OpenVinoGraph(_text(net), constants, slots)


def _placed(net: Element, slots: Mapping[str, Slot], start: int) -> tuple[Slot, ...]:
    """Turn the inputs that are slots into constants; those that nothing reads are dropped."""
    layers = net.find("layers")
    assert layers is not None
    read = {edge.get("from-layer") for edge in net.iterfind("edges/edge")}
    placed = []
    for layer in list(layers):
        slot = slots.get(layer.get("name", "")) if layer.get("type") == "Parameter" else None
        if slot is None:
            continue
        if layer.get("id") not in read:
            layers.remove(layer)
            continue
        start += -start % ALIGNMENT
        layer.set("type", "Const")
        (data,) = layer.iterfind("data")
        data.attrib.clear()
        shape = ", ".join(map(str, slot.form.shape))
        data.attrib |= {"element_type": _ELEMENTS[slot.form.dtype], "shape": shape}
        data.attrib |= {"offset": str(start), "size": str(slot.bytes)}
        placed.append(slot)
        start += slot.bytes
    return tuple(placed)


def _number_anew(net: Element, kept: set[str]) -> None:
    """Give names that a process counted the numbers of this graph; those of tensors of the ONNX graph stay."""
    kept = kept | {name for port in net.iter("port") for name in port.get("names", "").split(",")}
    kept |= {layer.get("name", "") for layer in net.iter("layer") if layer.get("type") in ("Parameter", "Result")}
    taken = kept | {layer.get("name", "") for layer in net.iter("layer")}
    for number, layer in enumerate(net.iter("layer")):
        name = layer.get("name", "")
        if name not in kept and _COUNTED.fullmatch(name):
            layer.set("name", next(new for new in _names(layer, number) if new not in taken or new == name))


def _names(layer: Element, number: int) -> Iterator[str]:
    name = f"{layer.get('type')}.{number}"
    while True:
        yield name
        name += "'"


def own_constants(graph: OpenVinoGraph) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of every constant that no slot fills."""
    slots = {slot.name for slot in graph.slots}
    for layer in ElementTree.fromstring(graph.xml).iter("layer"):
        if layer.get("type") == "Const" and layer.get("name") not in slots:
            (data,) = layer.iterfind("data")
            offset, size = int(data.attrib["offset"]), int(data.attrib["size"])
            yield layer.get("name", ""), graph.own[offset : offset + size]


def output_names(graph: OpenVinoGraph) -> Sequence[str]:
    """In the order of the graph, which is that of the ONNX graph."""
    layers = ElementTree.fromstring(graph.xml).iterfind("layers/layer")
    return tuple(layer.get("output_names", "") for layer in layers if layer.get("type") == "Result")


def saying(xml: bytes, told: str) -> bytes:
    """The graph that says this of itself: ``model.get_rt_info("recast")`` gives it back."""
    net = ElementTree.fromstring(xml)
    info = net.find("rt_info")
    info = ElementTree.SubElement(net, "rt_info") if info is None else info
    ElementTree.SubElement(info, "recast", value=told)
    return _text(net)


def _text(net: Element) -> bytes:
    written: bytes = ElementTree.tostring(net, encoding="utf-8", xml_declaration=True)
    return written
