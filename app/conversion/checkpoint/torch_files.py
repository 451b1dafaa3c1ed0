"""Reading what torch.save wrote, in its zip format (memory-mapped) and its legacy format (into memory)."""

import pickle
import tarfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import torch

from app.conversion.checkpoint.inert import INERT_NAMES, stand_ins
from app.conversion.checkpoint.pickle_globals import globals_of, refusal
from app.conversion.checkpoint.zip_layout import ZipLayout, read_layout
from app.domain.errors import CorruptCheckpoint

# What torch's reader raises on damaged content. MemoryError and RuntimeError include sizes no allocator gives.
_DAMAGE = (
    RuntimeError,
    AssertionError,
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    LookupError,
    MemoryError,
    OverflowError,
    RecursionError,
    TypeError,
    UnicodeError,
    ValueError,
    tarfile.TarError,
)


def read_zip(path: Path) -> tuple[Any, tuple[str, ...]]:
    """The object in a torch.save archive, its tensors memory-mapped (private), and notes.

    Raises CorruptCheckpoint, PickledModule, UnsafeCheckpoint, and what read_layout raises.
    """
    layout = read_layout(path)
    if layout.records.get("byteorder") and _record(path, layout, "byteorder") != b"little":
        return _read_big_endian(path, layout)
    storages: list[tuple[int, int]] = []

    def locate(storage: torch.UntypedStorage, _location: str) -> torch.UntypedStorage:
        storages.append((storage.data_ptr(), storage.nbytes()))
        return storage

    loaded, notes = _load(path, BytesIO(_record(path, layout, "data.pkl")), mmap=True, map_location=locate)
    _check_storages(storages, layout)
    return loaded, notes


def read_legacy(path: Path) -> tuple[Any, tuple[str, ...]]:
    """The object in a file of torch.save's format before 1.6, read into memory, and notes. Raises as read_zip does."""
    with path.open("rb") as file:
        return _load(path, file, mmap=False, map_location="cpu", pickles=5)


def _read_big_endian(path: Path, layout: ZipLayout) -> tuple[Any, tuple[str, ...]]:
    # Swapping bytes writes to every page, so nothing is gained by mapping them.
    loaded, notes = _load(path, BytesIO(_record(path, layout, "data.pkl")), mmap=False, map_location="cpu")
    return loaded, (*notes, "written on a big-endian machine; bytes were swapped")


def _load(
    path: Path, pickled: BinaryIO, *, mmap: bool, map_location: Any, pickles: int = 1
) -> tuple[Any, tuple[str, ...]]:
    """torch.load, weights only. ``pickled`` is read only to explain a refusal."""

    def load(*inert: str) -> Any:
        with warnings.catch_warnings(), _allowing_only(stand_ins(inert)):
            warnings.simplefilter("ignore")
            return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)

    try:
        try:
            return load(), ()
        except pickle.UnpicklingError as error:
            unsafe = _unsafe_globals(pickled, pickles)
            if not unsafe or not INERT_NAMES.issuperset(unsafe):
                raise refusal(unsafe, _reason(error)) from error
            return load(*unsafe), (f"objects left unread: {', '.join(unsafe)}",)
    except pickle.UnpicklingError as error:
        raise refusal(_unsafe_globals(pickled, pickles), _reason(error)) from error
    except _DAMAGE as error:
        raise CorruptCheckpoint(
            f"The file cannot be read to its end: {_reason(error)}",
            hint="Load it with torch.load(path, weights_only=True) where it was made; if that works, send it again.",
        ) from error


@contextmanager
def _allowing_only(globals_: Sequence[Callable[..., Any] | tuple[Callable[..., Any], str]]) -> Iterator[None]:
    """Beside torch's own allow-list, only ``globals_``: other libraries add classes when they are imported."""
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(list(globals_))
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def _unsafe_globals(pickled: BinaryIO, pickles: int) -> list[str]:
    """Globals outside torch's allow-list. The legacy format is a sequence of pickles."""
    allowed = set(torch._weights_only_unpickler._get_allowed_globals())
    pickled.seek(0)
    names: dict[str, None] = {}
    for _ in range(pickles):
        names.update(dict.fromkeys(islice(globals_of(pickled), 1_000_000)))
    return [name for name in names if name not in allowed and not _is_storage(name)]


def _is_storage(name: str) -> bool:
    return name.startswith("torch.") and name.endswith("Storage")


def _record(path: Path, layout: ZipLayout, name: str) -> bytes:
    record = layout.records[name]
    with path.open("rb") as file:
        file.seek(record.offset)
        return file.read(record.size)


def _check_storages(storages: list[tuple[int, int]], layout: ZipLayout) -> None:
    """Every storage that the pickle declared must be one whole record of the archive.

    The address of the mapping is not known here, so it is the one address that explains every storage.
    """
    offsets: dict[int, set[int]] = {}
    for record in layout.storages():
        offsets.setdefault(record.size, set()).add(record.offset)
    bases: set[int] | None = None
    for address, size in storages:
        if size == 0:
            continue
        known = offsets.get(size, set())
        bases = {address - o for o in known} if bases is None else {b for b in bases if address - b in known}
        if not bases:
            raise CorruptCheckpoint(f"The pickle declares a storage of {size} bytes that no record of that size holds.")


def _reason(error: BaseException) -> str:
    """The first telling line of an error, without torch's advice on how to switch the protection off."""
    text = str(error).strip()
    marker = "WeightsUnpickler error: "
    if marker in text:
        text = text.partition(marker)[2]
    line = text.splitlines()[0] if text else type(error).__name__
    return line.partition(" Please use `torch.serialization")[0][:300]
