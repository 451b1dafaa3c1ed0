"""The reader must give what onnx itself reads, and refuse what lies."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.targets.artifact import MalformedFile, StoredTensor
from app.targets.onnx.reading.tensors import DTYPES, read_onnx


def write(path: Path, initializers: list[TensorProto], nodes: list[onnx.NodeProto] | None = None) -> Path:
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes or [], "g", [], [output], initializers)
    path.write_bytes(helper.make_model(graph).SerializeToString())
    return path


def by_name(path: Path) -> dict[str, StoredTensor]:
    return {stored.name: stored for stored in read_onnx(path)}


@pytest.mark.parametrize(
    ("data_type", "values"),
    [
        (TensorProto.FLOAT, [1.5, -0.0, float("nan")]),
        (TensorProto.DOUBLE, [1.5, -2.0, 1e300]),
        (TensorProto.INT64, [-1, 2**62, 0]),
        (TensorProto.UINT64, [1, 2**63, 0]),
        (TensorProto.INT32, [-1, 2**31 - 1, 0]),
        (TensorProto.INT8, [-128, 127, -1]),
        (TensorProto.BOOL, [True, False, True]),
        (TensorProto.FLOAT16, [0.5, -1.0, 65504.0]),
        (TensorProto.BFLOAT16, [0.5, -1.0, 3.0]),
    ],
)
@pytest.mark.parametrize("raw", [False, True])
def test_bytes_are_those_that_onnx_reads(tmp_path: Path, data_type: int, values: list[float], raw: bool) -> None:
    tensor = helper.make_tensor("t", data_type, [3], values)
    if raw:
        tensor = numpy_helper.from_array(numpy_helper.to_array(tensor), "t")
    stored = by_name(write(tmp_path / "m.onnx", [tensor]))["t"]
    assert stored.data.tobytes() == numpy_helper.to_array(tensor).tobytes()
    assert (stored.dims, stored.dtype) == ((3,), DTYPES[data_type])


def test_tensors_in_attributes_and_subgraphs_are_found(tmp_path: Path) -> None:
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["deep"], value=numpy_helper.from_array(np.ones(2, np.float32)))],
        "then",
        [],
        [helper.make_tensor_value_info("deep", TensorProto.FLOAT, [2])],
        [numpy_helper.from_array(np.arange(4, dtype=np.float32), "inner")],
    )
    nodes = [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.zeros((2, 2), np.float32))),
        helper.make_node("Constant", [], ["f"], value_floats=[1.0, 2.0, 3.0]),
        helper.make_node("Constant", [], ["s"], value_float=4.0),
        helper.make_node("If", ["condition"], ["y"], then_branch=inner, else_branch=inner),
        helper.make_node("Scaler", ["c"], ["z"], domain="ai.onnx.ml", offset=[1.0, 2.0]),
    ]
    found = by_name(write(tmp_path / "m.onnx", [], nodes))
    assert set(found) == {"c", "f", "s", "inner", "deep", "z:offset"}
    assert found["f"].data.tobytes() == np.array([1, 2, 3], np.float32).tobytes()
    assert found["s"].dims == ()


def test_sparse_initializers_are_found(tmp_path: Path) -> None:
    values = numpy_helper.from_array(np.array([5.0], np.float32), "sparse")
    indices = numpy_helper.from_array(np.array([3], np.int64), "sparse_indices")
    graph = helper.make_graph([], "g", [], [], sparse_initializer=[helper.make_sparse_tensor(values, indices, [9])])
    path = tmp_path / "m.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    assert sorted(stored.data.size for stored in read_onnx(path)) == [4, 8]


def external(location: str, **entries: str) -> TensorProto:
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def test_external_data_is_read_at_its_offset(tmp_path: Path) -> None:
    (tmp_path / "m.data").write_bytes(np.array([9, 1, 2, 9], np.float32).tobytes())
    path = write(tmp_path / "m.onnx", [external("m.data", offset="4", length="8")])
    assert by_name(path)["t"].data.tobytes() == np.array([1, 2], np.float32).tobytes()


@pytest.mark.parametrize("location", ["../m.data", "/etc/hostname", "", "a/../../m.data", "missing.data", "link.data"])
def test_external_data_outside_the_directory_is_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "m.data").write_bytes(bytes(8))
    directory = tmp_path / "artifact"
    directory.mkdir()
    (directory / "link.data").symlink_to(tmp_path / "m.data")
    with pytest.raises(MalformedFile):
        read_onnx(write(directory / "m.onnx", [external(location)]))


@pytest.mark.parametrize("entries", [{"offset": "4"}, {"offset": "-4"}, {"length": "4"}, {"offset": "99"}])
def test_external_data_that_does_not_hold_the_tensor_is_refused(tmp_path: Path, entries: dict[str, str]) -> None:
    (tmp_path / "m.data").write_bytes(bytes(8))
    with pytest.raises(MalformedFile):
        read_onnx(write(tmp_path / "m.onnx", [external("m.data", **entries)]))


def test_data_that_disagrees_with_dims_is_refused(tmp_path: Path) -> None:
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[3], raw_data=bytes(8))
    with pytest.raises(MalformedFile, match="stores 8 bytes, not 12"):
        read_onnx(write(tmp_path / "m.onnx", [tensor]))


def test_every_truncation_is_refused_or_loses_nothing_silently(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(np.arange(40, dtype=np.float32), "t")
    whole = write(tmp_path / "m.onnx", [tensor]).read_bytes()
    for size in range(1, len(whole), 7):
        path = tmp_path / "cut.onnx"
        path.write_bytes(whole[:size])
        try:
            found = [stored.data.tobytes() for stored in read_onnx(path)]
        except MalformedFile:
            continue
        assert found in ([], [numpy_helper.to_array(tensor).tobytes()])


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 64, b"PK\x03\x04" + bytes(40), bytes([0x3A, 0xFF, 0xFF, 0xFF, 0x7F])]
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(MalformedFile):
        read_onnx(path)


def test_a_graph_field_given_twice_is_merged_as_protobuf_merges_it(tmp_path: Path) -> None:
    parts = [numpy_helper.from_array(np.full(2, value, np.float32), f"t{value}") for value in (1, 2)]
    path = tmp_path / "m.onnx"
    path.write_bytes(b"".join(write(tmp_path / "part.onnx", [part]).read_bytes() for part in parts))
    assert set(by_name(path)) == {tensor.name for tensor in onnx.load(path).graph.initializer} == {"t1", "t2"}
