"""The interpreter of pickle opcodes: it reads what torch reads, and nothing sent makes it fail but by design."""

import pickle
import pickletools
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from app.conversion.checkpoint import open_checkpoint
from app.conversion.checkpoint.pickle_machine import MAX_OPCODES, MAX_PICKLE, read_pickle
from app.conversion.checkpoint.pickle_values import Globals, Made, Ordered, OtherKey
from app.conversion.checkpoint.torch_vocabulary import TORCH
from app.domain.errors import CorruptCheckpoint, PayloadTooLarge, RecastError, UnsafeCheckpoint
from tests.conversion.corpus import saved, zipped_pickle

ANY_FILE = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read(content: bytes) -> Any:
    return read_pickle(content, TORCH, Globals()).value


def plain(value: Any) -> Any:
    """A value as Python's unpickler gives it; protocols 0 to 2 write b"" as bytes()."""
    if isinstance(value, Made) and (value.by, value.arguments) == ("builtins.bytes", ()):
        return b""
    if isinstance(value, dict):
        return {key.value if isinstance(key, OtherKey) else key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=50) | st.binary()
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=9) | st.integers(), inner)
    ),
    max_leaves=20,
)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@given(value=VALUES)
@settings(max_examples=60, deadline=None)
def test_plain_values_are_read_as_python_reads_them(protocol: int, value: Any) -> None:
    assert plain(read(pickle.dumps(value, protocol=protocol))) == value


DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.int8, torch.bool, torch.complex64]


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    shape = draw(npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    tensor = torch.randint(-3, 4, shape).to(draw(st.sampled_from(DTYPES)))
    if tensor.ndim > 1 and draw(st.booleans()):
        tensor = tensor.transpose(0, -1)
    return tensor[1:] if tensor.ndim and draw(st.booleans()) else tensor


@ANY_FILE
@given(
    state=st.dictionaries(st.text("abc.0", min_size=1), tensors(), min_size=1, max_size=6),
    legacy=st.booleans(),
    protocol=st.sampled_from([2, 3, 4, 5]),
)
def test_state_dicts_are_read_as_torch_reads_them(
    state: dict[str, torch.Tensor], legacy: bool, protocol: int, tmp_path: Path
) -> None:
    path = tmp_path / "w.pt"
    state["tied"] = next(iter(state.values()))
    torch.save(OrderedDict(state), path, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
    expected = torch.load(path, weights_only=protocol == 2)
    opened = open_checkpoint(path).state_dict
    assert list(opened) == list(expected)
    for name, tensor in expected.items():
        assert opened[name].dtype == tensor.dtype
        assert opened[name].stride() == tensor.stride()
        assert opened[name].equal(tensor)


def parameters_of_all_kinds() -> dict[str, Any]:
    attributed = torch.ones(3)
    attributed.note = "kept by torch, not by us"  # type: ignore[attr-defined]
    marked = torch.nn.Parameter(torch.ones(3))
    marked.tag = 1  # type: ignore[attr-defined]
    return {
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "frozen": torch.nn.Parameter(torch.randn(3), requires_grad=False),
        "buffer": torch.nn.Buffer(torch.randn(3)),
        "attributed": attributed,
        "marked": marked,
        "small": torch.tensor(3, dtype=torch.uint16),
        "float8": torch.ones(3).to(torch.float8_e5m2),
        "half complex": torch.ones(3, dtype=torch.complex32),
    }


def test_every_way_in_which_torch_writes_a_dense_tensor_is_read(tmp_path: Path) -> None:
    path = saved(parameters_of_all_kinds(), tmp_path / "w.pt")
    opened = open_checkpoint(path).state_dict
    for name, tensor in torch.load(path, weights_only=True).items():
        assert opened[name].dtype == tensor.dtype
        assert opened[name].view(torch.uint8 if tensor.ndim else tensor.dtype).tolist() == (
            tensor.detach().view(torch.uint8 if tensor.ndim else tensor.dtype).tolist()
        )


@ANY_FILE
@given(content=st.binary(max_size=200))
def test_any_bytes_are_a_value_or_a_designed_error(content: bytes) -> None:
    _read_or_refuse(content)


OPCODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]
GLOBALS = [
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch._utils\n_rebuild_parameter\n",
    b"ctorch._tensor\n_rebuild_from_type_v2\n",
    b"ctorch\nFloatStorage\n",
    b"ctorch\nTensor\n",
    b"ccollections\nOrderedDict\n",
    b"c_codecs\nencode\n",
    b"cargparse\nNamespace\n",
    b"cposix\nsystem\n",
    b"X\x01\x00\x00\x00a",
    b"K\x04",
    b"h\x00",
]


@ANY_FILE
@given(parts=st.lists(st.sampled_from(OPCODES + GLOBALS * 3) | st.binary(max_size=4), max_size=60))
def test_any_program_of_opcodes_is_a_value_or_a_designed_error(parts: list[bytes]) -> None:
    _read_or_refuse(b"".join(parts) + b".")


def _read_or_refuse(content: bytes) -> None:
    for persistent in (None, lambda _: None):
        try:
            read_pickle(content, TORCH, Globals(), persistent=persistent)
        except RecastError as error:
            error.problem().model_dump_json().encode("utf-8")
            assert error.detail  # noqa: PT017 - a value is as good as a refusal


@pytest.mark.parametrize("opcode", ["P", "\x82", "\x83", "\x84", "\x97", "\x98"])
def test_opcodes_of_other_uses_of_pickles_are_named(opcode: str) -> None:
    with pytest.raises(UnsafeCheckpoint, match="no checkpoint needs"):
        read(b"\x80\x02" + opcode.encode("latin-1") + b"0\n.")


def test_names_longer_than_any_name_are_refused_at_once(tmp_path: Path) -> None:
    path = zipped_pickle(b"\x80\x02cm\n" + b"x" * 5_000_000 + b"\n.", tmp_path / "f")
    with pytest.raises(UnsafeCheckpoint, match="5,000,001 characters"):
        open_checkpoint(path)


@pytest.mark.parametrize("name", [b"a\0b", b"x" * 1020, "\ud800".encode("utf-8", "surrogatepass")], ids=repr)
def test_names_of_globals_are_told_so_that_anything_can_store_them(name: bytes, tmp_path: Path) -> None:
    with pytest.raises(RecastError) as refused:
        open_checkpoint(zipped_pickle(b"\x80\x02cm\n" + name + b"\n.", tmp_path / "f"))
    told = refused.value.problem().model_dump_json()
    assert "\\u0000" not in told
    assert len(told.encode("utf-8")) < 3000


def test_how_many_opcodes_a_pickle_may_have_is_bounded() -> None:
    with pytest.raises(PayloadTooLarge, match="opcodes"):
        read(b"\x80\x02(" + b"N" * MAX_OPCODES + b"t.")


def test_how_long_a_pickle_may_be_is_bounded(tmp_path: Path) -> None:
    long = b"\x80\x02" + b"B" + struct.pack("<I", MAX_PICKLE) + bytes(MAX_PICKLE) + b"0}."
    with pytest.raises(PayloadTooLarge, match="MiB"):
        open_checkpoint(zipped_pickle(long, tmp_path / "f"))
    with pytest.raises(PayloadTooLarge, match="MiB"):
        read(long)


@pytest.mark.parametrize(
    "digits", [b"I" + b"9" * 10_000 + b"\n.", b"F" + b"9" * 100_000 + b"\n.", b"\x8b\xff\xff\x00\x00" + b"\1" * 65_535]
)
def test_numbers_whose_reading_is_not_linear_are_refused(digits: bytes) -> None:
    with pytest.raises(CorruptCheckpoint):
        read(digits)


def test_keys_are_told_apart_without_a_hash_of_what_they_hold() -> None:
    doubled = b"K\x00" + b"2\x86" * 100  # (((0, 0), (0, 0)), ...): its hash would visit 2**100 places
    found = read(b"\x80\x02}" + doubled + b"Ns.")
    assert [str(key) for key in found] == ["<tuple>"]
    colliding = (number * ((1 << 61) - 1) for number in range(50_000))  # a dict of them would be made in minutes
    items = b"".join(b"\x8a\x0a" + number.to_bytes(10, "little") + b"N" for number in colliding)
    assert len(read(b"\x80\x02}(" + items + b"u.")) == 50_000


def test_a_call_of_what_is_known_to_carry_no_weights_is_remembered_and_not_made() -> None:
    globals_ = Globals()
    value = read_pickle(b"\x80\x02cargparse\nNamespace\n)\x81}X\x01\x00\x00\x00aK\x01sb.", TORCH, globals_).value
    assert isinstance(value, Made)
    assert (value.by, value.state) == ("argparse.Namespace", {"a": 1})
    assert list(globals_.unread) == ["argparse.Namespace"]


def test_ordered_dicts_keep_their_attributes() -> None:
    value = read(pickle.dumps(torch.nn.BatchNorm1d(2).state_dict()._metadata, protocol=2))
    assert isinstance(value, Ordered)
    assert value[""] == {"version": 2}


SHARED = {
    "torch.Size": b"(" + b"N" * 1000 + b"l\x85",
    "collections.OrderedDict": b"(" + b"".join(b"M" + struct.pack("<H", key) + b"N" for key in range(1000)) + b"d\x85",
    "_codecs.encode": b"X" + struct.pack("<I", 16_000) + b"a" * 16_000 + b"X\x06\0\0\0latin1\x86",
}


@pytest.mark.parametrize("called", SHARED)
def test_calls_copy_no_more_than_the_pickle_has_bytes(called: str) -> None:
    once = b"\x80\x02" + SHARED[called] + b"q\x010c" + called.replace(".", "\n").encode() + b"\nq\x020"
    read(once + b"h\x02h\x01R.")
    with pytest.raises(PayloadTooLarge, match="over and over"):
        read(once + b"h\x02h\x01R0" * 100 + b"N.")


def test_what_few_items_share_is_free() -> None:
    size = b"\x80\x02(" + b"K\x01" * 8 + b"t\x85q\x010ctorch\nSize\nq\x020"
    assert read(size + b"h\x02h\x01R0" * 10_000 + b"h\x02h\x01R.") == (1,) * 8
