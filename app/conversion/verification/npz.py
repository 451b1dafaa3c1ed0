"""Reading a client's npz file, of which nothing is believed: sizes are known and bounded before bytes are read."""

import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.lib import format as npy

from app.domain.errors import InvalidOptions

MAX_ARRAYS = 256
"""Arrays of one file: probes times inputs. Each probe is a run of the model on both sides."""
MAX_BYTES = 256 << 20
"""Bytes of all arrays together, as declared before any is read."""
_MAX_HEADER = 10_000
"""Characters of an array's header: numpy's own bound."""

# What zipfile, zlib and numpy raise for files that are not what they claim to be.
_MALFORMED = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RuntimeError,  # encrypted; NotImplementedError for methods of compression
    MemoryError,
    OverflowError,
    RecursionError,
    SyntaxError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Arrays by name. Raises InvalidOptions for what is no npz file of plain arrays within the bounds above."""
    try:
        with zipfile.ZipFile(path) as archive:
            return dict(_arrays(archive))
    except _MALFORMED as error:
        raise InvalidOptions(f"the probes are not a readable npz file: {_words(error)}") from error


def _arrays(archive: zipfile.ZipFile) -> Iterator[tuple[str, np.ndarray]]:
    members = archive.infolist()
    if not members:
        raise ValueError("it holds no array")
    if len(members) > MAX_ARRAYS:
        raise InvalidOptions(f"the probes hold {len(members):,} arrays; at most {MAX_ARRAYS} are read")
    declared = sum(member.file_size for member in members)
    if declared > MAX_BYTES:
        raise InvalidOptions(f"the probes hold {declared:,} bytes of arrays; at most {MAX_BYTES:,} are read")
    if len({member.filename for member in members}) != len(members):
        raise ValueError("a name occurs twice")
    for member in members:
        with archive.open(member) as file:
            yield member.filename.removesuffix(".npy"), _array(cast(BinaryIO, file), member.file_size)


def _array(file: BinaryIO, size: int) -> np.ndarray:
    version = npy.read_magic(file)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"an array is of version {version[0]}.{version[1]} of the format")
    shape, fortran_order, dtype = readers[version](file, max_header_size=_MAX_HEADER)
    if dtype.hasobject or dtype.subdtype is not None or dtype.names is not None or dtype.itemsize == 0:
        raise ValueError(f"an array is of dtype {dtype}")
    content = file.read(size)
    array = np.frombuffer(content, dtype)  # raises where the size is no multiple
    if array.size != int(np.prod(np.array(shape, dtype=object))) or min(shape, default=0) < 0:
        raise ValueError(f"an array of shape {shape} holds {array.size} values")
    return array.reshape(shape, order="F" if fortran_order else "C")


def _words(error: BaseException) -> str:
    text = str(error).split("\n", 1)[0][:200]
    return text if text.isprintable() and text else type(error).__name__
