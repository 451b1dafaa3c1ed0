"""Filling a template: write the pieces of a file with the slots' tensors between them, hashed on the way."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from app.domain.errors import TemplateMismatch
from app.targets.templating.hashed_file import HashedFile
from app.targets.templating.pieces import CHECKSUM_BYTES, Piece, Slot, SlotChecksum, SlotData
from app.targets.templating.recipe import evaluate, weights_of
from app.targets.templating.slots import TensorForm
from app.targets.templating.tensor_bytes import tensor_bytes


@dataclass(frozen=True)
class WrittenFile:
    """A finished file. ``data`` is the side file of an ONNX artifact with external data."""

    path: Path
    sha256: str
    bytes: int
    data: "WrittenFile | None" = None


def write_pieces(
    pieces: Sequence[Piece], tensors: Mapping[str, Tensor], constants: Mapping[str, Tensor], path: Path
) -> WrittenFile:
    """Write ``pieces`` to ``path``. Tensors are read where they lie; on an error no file is left."""

    def data_of(slot: Slot) -> memoryview:
        try:
            tensor = evaluate(slot.recipe, tensors, constants)
        except (IndexError, RuntimeError) as error:
            keys = ", ".join(sorted(set(weights_of(slot.recipe))))
            raise TemplateMismatch(f"slot {slot.name} cannot be made of {keys}: {error}") from error
        if TensorForm.of(tensor) != slot.form:
            raise TemplateMismatch(f"slot {slot.name} holds {slot.form}, its recipe gave {TensorForm.of(tensor)}")
        return tensor_bytes(tensor)

    checksums: dict[str, bytes] = {}
    with HashedFile(path) as file:
        for piece in pieces:
            match piece:
                case SlotData(slot):
                    file.write(data_of(slot))
                case SlotChecksum(slot):
                    file.write(_checksum(slot, data_of, checksums))
                case _:
                    file.write(piece)
    return WrittenFile(path, file.sha256(), file.bytes)


def _checksum(slot: Slot, data_of: Callable[[Slot], memoryview], known: dict[str, bytes]) -> bytes:
    """CRC-32, computed once: an archive holds it before the data and again in its directory."""
    if slot.name not in known:
        known[slot.name] = zlib.crc32(data_of(slot)).to_bytes(CHECKSUM_BYTES, "little")
    return known[slot.name]
