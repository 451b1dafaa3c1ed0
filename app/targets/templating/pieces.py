"""An artifact as a sequence of pieces: literal bytes of the template, and what slots put between them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from app.targets.templating.recipe import Recipe, weights_of
from app.targets.templating.slots import TensorForm, WeightTable
from app.targets.templating.tensor_bytes import dtype_of


@dataclass(frozen=True)
class Slot:
    """One initializer of the artifact that is computed from uploaded tensors."""

    name: str
    form: TensorForm
    recipe: Recipe

    @property
    def bytes(self) -> int:
        """Length of its raw data."""
        size = dtype_of(self.form.dtype).itemsize
        for extent in self.form.shape:
            size *= extent
        return size


@dataclass(frozen=True)
class SlotData:
    """The data of a slot, ``slot.bytes`` long."""

    slot: Slot


@dataclass(frozen=True)
class SlotChecksum:
    """The CRC-32 of a slot's data, little-endian, as zip archives have it."""

    slot: Slot


Piece = bytes | SlotData | SlotChecksum

CHECKSUM_BYTES = 4


def piece_length(piece: Piece) -> int:
    """Bytes of the piece, known without the slot's data."""
    match piece:
        case SlotData(slot):
            return slot.bytes
        case SlotChecksum():
            return CHECKSUM_BYTES
        case _:
            return len(piece)


def total_length(pieces: Sequence[Piece]) -> int:
    return sum(map(piece_length, pieces))


def weight_table(
    slots: Iterable[Slot], forms: Mapping[str, TensorForm], groups: Mapping[str, list[str]]
) -> WeightTable:
    """What a template with these slots does with each key; ``forms`` and ``groups`` are those of ``state_forms``."""
    used = {key: forms[key] for slot in slots for key in weights_of(slot.recipe)}
    tied = {other: key for key in used for other in groups[key] if other != key}
    return WeightTable(
        used=used,
        tied=tied,
        unreached={key: form for key, form in forms.items() if key not in used and key not in tied},
    )
