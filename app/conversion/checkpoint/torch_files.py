"""Reading what torch.save wrote, in its zip format and in its legacy format (torch/serialization.py)."""

import struct
from dataclasses import dataclass
from mmap import mmap
from typing import Any

from app.conversion.checkpoint.extent import Extent
from app.conversion.checkpoint.pickle_machine import MAX_PICKLE, read_pickle
from app.conversion.checkpoint.pickle_values import Globals, Name, Vocabulary
from app.conversion.checkpoint.stored_tensors import Storage
from app.conversion.checkpoint.torch_vocabulary import TORCH, refusal, storage_dtype
from app.conversion.checkpoint.zip_layout import ZipLayout, read_layout
from app.domain.errors import CorruptCheckpoint, PayloadTooLarge, RecastError, UnsafeCheckpoint

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_LENGTH = struct.Struct("<q")
_MOST = 1 << 48
"""Elements of a storage; more no file holds."""
_KEY_BITS = 64
"""Of keys that are numbers: addresses of memory where the file was written."""


@dataclass(frozen=True)
class Contents:
    """What a file holds: plain data in which tensors are views of its storages, and notes for the reader."""

    root: object
    notes: tuple[str, ...] = ()


def read_zip(archive: Extent) -> Contents:
    """The object in a torch.save archive.

    Raises CorruptCheckpoint, PickledModule, UnsafeCheckpoint, UnsupportedTensor, PayloadTooLarge, and what read_layout
    raises.
    """
    layout = read_layout(archive)
    pickled = layout.records["data.pkl"]
    if pickled.size > MAX_PICKLE:
        raise PayloadTooLarge(
            f"data.pkl is longer than {MAX_PICKLE >> 20} MiB; weights alone need much less.",
            hint="NumPy arrays and lists of numbers lie in it, tensors beside it: save the weights as tensors "
            "(torch.from_numpy), alone.",
        )
    swapped = is_big_endian(layout)
    pickles = Pickles(pickled.read())
    root = pickles.read()
    place_storages(pickles, layout, swapped=swapped)
    notes = ("written on a big-endian machine; bytes were swapped",) if swapped else ()
    return Contents(root, (*pickles.notes(), *notes))


def place_storages(pickles: "Pickles", layout: ZipLayout, *, swapped: bool = False) -> None:
    """Find the record of every storage that was declared. Raises CorruptCheckpoint."""
    for storage in pickles.storages.values():
        storage.extent, storage.swapped = layout.records.get(f"data/{storage.key}"), swapped
        if storage.extent is None or storage.extent.size != storage.bytes:
            raise CorruptCheckpoint(
                f"The pickle declares a storage of {storage.bytes} bytes that no record of that size holds."
            )


def read_legacy(file: Extent) -> Contents:
    """The object in a file of torch.save's format before 1.6: five pickles, then the storages. Raises as read_zip."""
    with file.map() as data:
        pickles = Pickles(data, file.offset)
        if pickles.read() != MAGIC or pickles.read() != PROTOCOL:
            raise CorruptCheckpoint("The header is not the one that torch.save writes.")
        pickles.read()  # the writer's byte order, which says nothing of the storages, and its sizes of types
        root = pickles.read()
        keys = pickles.read()
        if not isinstance(keys, list):
            raise CorruptCheckpoint("The list of storages is missing.")
        at = pickles.at - file.offset
        for key in keys:
            storage = pickles.storages.get(_key(key))
            if storage is None or storage.extent is not None:
                raise CorruptCheckpoint("The list of storages names one that was not declared, or names one twice.")
            length = file.part(at, _LENGTH.size)
            (numel,) = _LENGTH.unpack_from(data, length.offset)
            if numel * storage.dtype.itemsize != storage.bytes:
                raise CorruptCheckpoint(f"A storage of {storage.bytes} bytes was declared; {numel} elements follow.")
            storage.extent = file.part(at + _LENGTH.size, storage.bytes)
            at += _LENGTH.size + storage.bytes
    return Contents(root, pickles.notes())


def is_big_endian(layout: ZipLayout) -> bool:
    if "byteorder" not in layout.records:
        return False
    order = layout.records["byteorder"].read(16)
    if order not in (b"little", b"big"):
        raise CorruptCheckpoint(f"The archive's byte order is {order!r}.")
    return order == b"big"


def _key(given: object) -> str | None:
    """A storage's key as a text, since numbers can be made that have one and the same hash; None for what is none."""
    if isinstance(given, int) and given.bit_length() <= _KEY_BITS:
        return str(int(given))
    return given if isinstance(given, str) else None


class Pickles:
    """The pickles of one file, one after another, and the storages that they declare."""

    def __init__(self, data: bytes | mmap, at: int = 0, vocabulary: Vocabulary = TORCH) -> None:
        self._data, self._vocabulary = data, vocabulary
        self._globals = Globals()
        self._views: dict[tuple[object, ...], Storage] = {}
        self.at = at
        self.storages: dict[str | None, Storage] = {}
        """By the key that the pickle gives them."""

    def read(self) -> Any:
        """The next pickle's value. Globals that no checkpoint needs are told all together."""
        try:
            pickle = read_pickle(self._data, self._vocabulary, self._globals, persistent=self._meant, start=self.at)
        except (CorruptCheckpoint, UnsafeCheckpoint) as error:
            if self._globals.unknown:
                raise self._refusal() from error
            raise
        if self._globals.unknown:
            raise self._refusal()
        self.at = pickle.end
        return pickle.value

    def _refusal(self) -> RecastError:
        return refusal(list(self._globals.unknown), self._globals.unread)

    def notes(self) -> tuple[str, ...]:
        unread = ", ".join(self._globals.unread)
        return (f"objects left unread: {unread}",) if unread else ()

    def _meant(self, identifier: object) -> Storage | Name:
        """A storage; or, in the legacy format, ("module", class, file, source) of a layer's class."""
        match identifier:
            case ("module" | b"module", Name() as name, *_):
                return name
        return self._storage(identifier)

    def _storage(self, identifier: object) -> Storage:
        """("storage", class, key, location, numel[, view])"""
        if not isinstance(identifier, tuple) or not identifier or identifier[0] not in ("storage", b"storage"):
            raise UnsafeCheckpoint("The pickle refers to something that is no storage of the file.", unsafe_globals=[])
        _, kind, given, _, numel, *view = identifier
        dtype, key = storage_dtype(kind), _key(given)
        if key is None or type(numel) is not int or not 0 <= numel < _MOST:
            raise CorruptCheckpoint("The pickle declares a storage without a key or a size.")
        declared = Storage(key, dtype, numel * dtype.itemsize)
        storage = self.storages.setdefault(key, declared)
        if (storage.dtype, storage.bytes) != (declared.dtype, declared.bytes):
            raise CorruptCheckpoint("The pickle declares one storage twice, with two types or sizes.")
        return storage if not view or view[0] is None else self._view(storage, view[0])

    def _view(self, root: Storage, view: object) -> Storage:
        """(key, offset, numel): before torch 0.4 a storage could be a view of another."""
        if (
            not isinstance(view, tuple)
            or len(view) != 3
            or not all(type(number) is int and 0 <= number < _MOST for number in view[1:])
        ):
            raise CorruptCheckpoint("The pickle declares a view of a storage in an unknown form.")
        size = root.dtype.itemsize
        part = Storage(root.key, root.dtype, view[2] * size, root=root, start=view[1] * size)
        return self._views.setdefault((id(root), part.start, part.bytes), part)
