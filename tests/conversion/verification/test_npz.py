"""A client's npz file that is not what it claims to be is refused in words, before memory is spent on it."""

import io
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.conversion.verification.npz import MAX_ARRAYS, MAX_BYTES, read_npz
from app.domain.errors import InvalidOptions


def packed(members: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def header(text: str, version: int = 1) -> bytes:
    length = struct.pack("<H" if version == 1 else "<I", len(text) + 1)
    return b"\x93NUMPY" + bytes([version, 0]) + length + text.encode("latin-1") + b"\n"


def described(shape: str, dtype: str = "'<f4'") -> bytes:
    return header(f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}")


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


GOOD = packed({"x.npy": npy(np.ones((2, 3), np.float32))})
MALFORMED = {
    "junk": b"junk",
    "empty": b"",
    "an npy": npy(np.ones(3)),
    "a zip's start": b"PK\x03\x04" + b"x" * 500,
    "a zip's end": b"PK\x05\x06" + bytes(18),
    "cut": GOOD[:-30],
    "a text": packed({"x.npy": b"hello"}),
    "no content": packed({"x.npy": b""}),
    "a pickle": packed({"x.npy": npy(np.array([{}], dtype=object))}),
    "records": packed({"x.npy": npy(np.zeros(2, [("a", "<f4")]))}),
    "a version": packed({"x.npy": b"\x93NUMPY\x09\x00" + bytes(20)}),
    "a header without end": packed({"x.npy": b"\x93NUMPY\x01\x00\xff\xff{"}),
    "a header that calls": packed({"x.npy": header("__import__('os').getpid()")}),
    "a header of brackets": packed({"x.npy": header("[" * 9_000)}),
    "a long header": packed({"x.npy": header("{" + " " * 60_000 + "}")}),
    "a header of another kind": packed({"x.npy": header("3")}),
    "a huge shape": packed({"x.npy": described("(1000000000000,)") + bytes(8)}),
    "an overflowing shape": packed({"x.npy": described("(4294967296, 4294967296)") + bytes(8)}),
    "a negative shape": packed({"x.npy": described("(-2,)") + bytes(8)}),
    "two negative sizes": packed({"x.npy": described("(-1, -2)") + bytes(8)}),
    "a shape of text": packed({"x.npy": described("('a',)") + bytes(8)}),
    "half a value": packed({"x.npy": described("(2,)") + bytes(7)}),
    "more values": packed({"x.npy": described("(2,)") + bytes(12)}),
    "no width": packed({"x.npy": described("(2,)", "'<U0'") + bytes(8)}),
    "an unknown dtype": packed({"x.npy": described("(2,)", "'<q9'") + bytes(8)}),
    "another method": GOOD.replace(b"\x14\x00\x00\x00\x08\x00", b"\x14\x00\x00\x00\x63\x00"),
    "encrypted": GOOD.replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"),
    "damaged": GOOD[:45] + b"\xff\xff\xff\xff" + GOOD[49:],
    "too many": packed({f"p{index}/x.npy": b"" for index in range(MAX_ARRAYS + 1)}),
    "a bomb": packed({"x.npy": described("(67200000,)") + bytes(268_800_000)}),
}


@pytest.mark.parametrize("kind", list(MALFORMED))
def test_what_is_no_npz_is_refused_in_words(kind: str, tmp_path: Path) -> None:
    (tmp_path / "p.npz").write_bytes(MALFORMED[kind])
    with pytest.raises(InvalidOptions) as refused:
        read_npz(tmp_path / "p.npz")
    assert len(refused.value.detail) < 400
    assert not refused.value.detail.endswith(": ")


def test_a_bomb_that_lies_about_its_size_gives_no_more_than_it_declared(tmp_path: Path) -> None:
    bomb = packed({"x.npy": described("(1000,)") + bytes(1 << 24)})
    declared = len(described("(1000,)")) + 4_000
    patched = bomb.replace(struct.pack("<I", len(described("(1000,)")) + (1 << 24)), struct.pack("<I", declared))
    (tmp_path / "p.npz").write_bytes(patched)
    with pytest.raises(InvalidOptions):
        read_npz(tmp_path / "p.npz")


def test_bounds_hold_before_anything_is_read(tmp_path: Path) -> None:
    assert MAX_BYTES < 268_800_000
    many = packed({f"{index}/x.npy": npy(np.ones(2)) for index in range(MAX_ARRAYS)}, zipfile.ZIP_STORED)
    (tmp_path / "p.npz").write_bytes(many)
    assert len(read_npz(tmp_path / "p.npz")) == MAX_ARRAYS


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_read_as_numpy_reads_them(save: object, order: str, tmp_path: Path) -> None:
    arrays = {
        "a": np.asarray(np.arange(6.0).reshape(2, 3), order=order),  # type: ignore[call-overload]
        "b/c": np.array(True),
        "d": np.zeros((0, 3), np.int64),
    }
    save(tmp_path / "p.npz", **arrays)  # type: ignore[operator]
    read = read_npz(tmp_path / "p.npz")
    with np.load(tmp_path / "p.npz") as expected:
        assert set(read) == set(expected.files)
        for name in expected.files:
            assert np.array_equal(read[name], expected[name])
            assert read[name].dtype == expected[name].dtype


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(GOOD) - 1), by=st.binary(min_size=1, max_size=4))
def test_no_change_of_a_few_bytes_ends_in_anything_but_invalid_options(at: int, by: bytes, tmp_path: Path) -> None:
    (tmp_path / "p.npz").write_bytes(GOOD[:at] + by + GOOD[at + len(by) :])
    try:
        read_npz(tmp_path / "p.npz")
    except InvalidOptions as error:
        assert error.detail  # noqa: PT017 - a change may do no harm
