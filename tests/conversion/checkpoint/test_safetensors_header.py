"""The safetensors header: what the format's own library refuses is refused, and what it reads is read the same."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from app.conversion.checkpoint import open_checkpoint
from app.domain.errors import RecastError

ANY_FILE = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
GOOD = save({"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([True, False]), "c": torch.zeros(0, 4)})


def agree(content: bytes, path: Path) -> None:
    """Recast reads what the library reads; it may refuse more (names that nothing can hold), never less."""
    path.write_bytes(content)
    try:
        read = open_checkpoint(path).state_dict
    except RecastError as error:
        error.problem().model_dump_json().encode("utf-8")
        return
    expected = load_file(path)
    assert set(read) == set(expected)
    for name, tensor in expected.items():
        assert (read[name].dtype, read[name].shape) == (tensor.dtype, tensor.shape)
        assert read[name].view(torch.uint8).tolist() == tensor.view(torch.uint8).tolist() if tensor.ndim else True


@ANY_FILE
@given(at=st.integers(0, len(GOOD) - 1), by=st.binary(min_size=1, max_size=6))
def test_changed_files(at: int, by: bytes, tmp_path: Path) -> None:
    agree(GOOD[:at] + by + GOOD[at + len(by) :], tmp_path / "f")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
DTYPES = st.sampled_from(["F32", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "F4", "f32", "C64"])
ENTRY = st.fixed_dictionaries(
    {
        "dtype": DTYPES | JSON,
        "shape": st.lists(st.integers(0, 4), max_size=3) | JSON,
        "data_offsets": st.lists(st.integers(0, 32), min_size=2, max_size=2) | JSON,
    }
)


@ANY_FILE
@given(
    header=st.dictionaries(st.text(max_size=4) | st.just("__metadata__"), ENTRY | JSON, max_size=3),
    size=st.integers(0, 64),
)
def test_any_header(header: dict[str, Any], size: int, tmp_path: Path) -> None:
    text = json.dumps(header).encode()
    agree(len(text).to_bytes(8, "little") + text + bytes(size), tmp_path / "f")


@ANY_FILE
@given(header=st.binary(max_size=60))
def test_any_bytes_for_a_header(header: bytes, tmp_path: Path) -> None:
    agree(len(header).to_bytes(8, "little") + header, tmp_path / "f")


@ANY_FILE
@given(
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64]),
    shapes=st.lists(st.lists(st.integers(0, 3), max_size=4), min_size=1, max_size=4),
)
def test_files_that_the_library_writes_are_read(dtype: torch.dtype, shapes: list[list[int]], tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(save({f"t{index}": torch.randint(0, 2, shape).to(dtype) for index, shape in enumerate(shapes)}))
    read, expected = open_checkpoint(path).state_dict, load_file(path)
    assert {name: tensor.tolist() for name, tensor in read.items()} == {
        name: tensor.tolist() for name, tensor in expected.items()
    }


def test_the_library_refuses_too(tmp_path: Path) -> None:
    """The comparison above can fail: the library does not read just anything."""
    (tmp_path / "f").write_bytes(GOOD[:-1])
    with pytest.raises(SafetensorError):
        load_file(tmp_path / "f")
