"""Where every byte of an artifact lies, known from the template alone.

An artifact is a sequence of pieces: literal bytes of the template, and the data of slots. With external data the
slots of at least EXTERNAL_THRESHOLD bytes lie in one side file instead, each at a multiple of ALIGNMENT. A graph over
a checkpoint points into the uploaded file, for the slots that stand there as they are.
Fields come in the order of their numbers, so the file is what a protobuf library would write for the same model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from app.targets.onnx.writing.protobuf import (
    GRAPH_INITIALIZER,
    LOCATION_EXTERNAL,
    MODEL_GRAPH,
    MODEL_METADATA_PROPS,
    TENSOR_DATA_LOCATION,
    TENSOR_DATA_TYPE,
    TENSOR_DIMS,
    TENSOR_EXTERNAL_DATA,
    TENSOR_NAME,
    TENSOR_RAW_DATA,
    fields,
    len_field,
    length_prefix,
    varint_field,
)
from app.targets.onnx.writing.template import OnnxTemplate
from app.targets.templating.pieces import Piece, Slot, SlotData, total_length
from app.targets.templating.proof import holds
from app.targets.templating.recipe import Weight
from app.targets.templating.tensor_bytes import ONNX_DTYPES

PROTOBUF_LIMIT = 2**31 - 1
"""Bytes of the largest message that protobuf libraries parse."""

EXTERNAL_DATA_NAME = "model.onnx.data"
"""Location of the side file, relative to the artifact: one fixed plain name, so it can never lead elsewhere."""

EXTERNAL_THRESHOLD = 1024
"""Smaller tensors stay in the graph, as onnx.save_model does: shape inference may want to read them."""

ALIGNMENT = 4096
"""Page size; the ONNX specification asks for it so that tensors can be memory-mapped (docs/ExternalData.md)."""


@dataclass(frozen=True)
class Layout:
    """``side`` is empty when all data lies in the artifact itself."""

    main: tuple[Piece, ...]
    side: tuple[Piece, ...]


def lay_out(template: OnnxTemplate, *, external: bool) -> Layout:
    """The pieces of the artifact. The artifact may exceed PROTOBUF_LIMIT: that is for the caller to check."""
    referenced = referenced_slots(template)
    initializers: list[Piece] = []
    side: list[Piece] = []
    offset = 0
    for slot in template.slots:
        if slot.name in referenced and template.checkpoint is not None:
            initializers.append(_external_initializer(slot, template.checkpoint.name, referenced[slot.name]))
        elif external and slot.bytes >= EXTERNAL_THRESHOLD:
            gap = -offset % ALIGNMENT
            side += [bytes(gap), SlotData(slot)] if gap else [SlotData(slot)]
            initializers.append(_external_initializer(slot, EXTERNAL_DATA_NAME, offset + gap))
            offset += gap + slot.bytes
        else:
            initializers += _inline_initializer(slot)
    graph_length = len(template.graph_head) + total_length(initializers) + len(template.graph_tail)
    head = template.model_head + length_prefix(MODEL_GRAPH, graph_length) + template.graph_head
    tail = template.graph_tail + template.model_tail
    return Layout(main=(head, *initializers, tail), side=tuple(side))


def referenced_slots(template: OnnxTemplate) -> dict[str, int]:
    """Where in the checkpoint's file the data of a slot begin, by the slot's name; the others are carried."""
    offsets = template.checkpoint.offsets if template.checkpoint is not None else {}
    return {
        slot.name: offsets[slot.recipe.key]
        for slot in template.slots
        if isinstance(slot.recipe, Weight) and slot.recipe.key in offsets and slot.bytes >= EXTERNAL_THRESHOLD
    }


def _inline_initializer(slot: Slot) -> list[Piece]:
    head = _tensor_fields(slot) + length_prefix(TENSOR_RAW_DATA, slot.bytes)
    return [length_prefix(GRAPH_INITIALIZER, len(head) + slot.bytes) + head, SlotData(slot)]


def _external_initializer(slot: Slot, location: str, offset: int) -> bytes:
    entries = {"location": location, "offset": str(offset), "length": str(slot.bytes)}
    head = _tensor_fields(slot)
    for key, value in entries.items():
        head += len_field(TENSOR_EXTERNAL_DATA, len_field(1, key.encode()) + len_field(2, value.encode()))
    head += varint_field(TENSOR_DATA_LOCATION, LOCATION_EXTERNAL)
    return len_field(GRAPH_INITIALIZER, head)


def _tensor_fields(slot: Slot) -> bytes:
    dims = b"".join(varint_field(TENSOR_DIMS, extent) for extent in slot.form.shape)
    data_type = varint_field(TENSOR_DATA_TYPE, ONNX_DTYPES[slot.form.dtype])
    return dims + data_type + len_field(TENSOR_NAME, slot.name.encode())


def with_metadata(model_tail: bytes, pairs: Mapping[str, str]) -> bytes:
    """The fields of ModelProto after ``graph``, with ``metadata_props`` of these pairs in its place among them."""
    entries = (len_field(1, key.encode()) + len_field(2, value.encode()) for key, value in pairs.items())
    told = b"".join(len_field(MODEL_METADATA_PROPS, entry) for entry in entries)
    found = list(fields(model_tail))
    before = b"".join(field for number, field in found if number < MODEL_METADATA_PROPS)
    return before + told + b"".join(field for number, field in found if number >= MODEL_METADATA_PROPS)


def same_graph(template: OnnxTemplate, artifact: Path) -> bool:
    """Whether ``artifact`` (and its side file) is what the template writes, whatever fills the slots.

    Reads the template's own bytes and no weights: about a tenth of a megabyte of a file of any size.
    """
    inline, external = (lay_out(template, external=choice) for choice in (False, True))
    return _is_laid_out(inline, artifact) or (bool(external.side) and _is_laid_out(external, artifact))


def _is_laid_out(layout: Layout, artifact: Path) -> bool:
    if not holds(layout.main, artifact):
        return False
    return not layout.side or holds(layout.side, artifact.with_name(EXTERNAL_DATA_NAME))
