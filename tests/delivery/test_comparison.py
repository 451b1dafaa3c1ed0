import asyncio
import math

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from app.delivery import comparison
from app.delivery.comparison import Source, TensorChange, compare
from app.delivery.onnx_file import stored_tensors


def onnx_file(**tensors: np.ndarray) -> bytes:
    stored = [numpy_helper.from_array(values, name) for name, values in tensors.items()]
    return helper.make_model(helper.make_graph([], "g", [], [], stored)).SerializeToString()


def compared(first: bytes, second: bytes) -> dict[str, TensorChange]:
    def of(content: bytes):
        async def read(start: int, end: int) -> bytes:
            return content[start:end]

        return read

    async def run() -> tuple[TensorChange, ...]:
        sources = [Source(await stored_tensors(of(content), len(content)), of(content)) for content in (first, second)]
        return await compare(*sources)

    return {change.name: change for change in asyncio.run(run())}


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_norms_are_those_of_numpy(dtype):
    draw = np.random.default_rng(0)
    first, second = (draw.normal(size=(50, 400)).astype(dtype) for _ in range(2))
    change = compared(onnx_file(w=first), onnx_file(w=second))["w"]
    wide = first.astype(np.float64), second.astype(np.float64)
    assert change.change == "changed"
    assert change.measured == 1
    assert change.difference == pytest.approx(np.linalg.norm(wide[1] - wide[0]), rel=1e-6)
    assert change.norm == pytest.approx(np.linalg.norm(wide[0]), rel=1e-6)


def test_bfloat16_is_read_as_the_upper_half_of_float32():
    def stored(value: float) -> bytes:
        bits = (np.full(5, value, np.float32).view(np.uint32) >> 16).astype(np.uint16)
        tensor = helper.make_tensor("w", onnx.TensorProto.BFLOAT16, [5], bits.tobytes(), raw=True)
        return helper.make_model(helper.make_graph([], "g", [], [], [tensor])).SerializeToString()

    change = compared(stored(1.5), stored(2.0))["w"]
    assert change.difference == pytest.approx(math.sqrt(5 * 0.25))
    assert change.norm == pytest.approx(math.sqrt(5 * 2.25))


def test_one_bit_is_a_change_and_equal_bytes_are_none():
    values = np.ones(300_000, np.float32)
    other = values.copy()
    other[299_999] = np.nextafter(np.float32(1), np.float32(2))
    found = compared(onnx_file(a=values, b=values), onnx_file(a=values, b=other))
    assert found["a"].change == "same"
    assert found["b"].change == "changed"
    assert found["b"].difference == pytest.approx(2**-23)


def test_what_is_in_one_file_only_or_of_another_shape_is_told():
    one, two = np.zeros(2, np.float32), np.zeros(3, np.float32)
    found = compared(onnx_file(a=one, b=one, c=one), onnx_file(a=two, c=one.astype(np.float64), d=one))
    assert {name: change.change for name, change in found.items()} == {
        "a": "shape", "b": "only_first", "c": "shape", "d": "only_second",
    }  # fmt: skip


def test_a_large_tensor_is_measured_in_parts(monkeypatch):
    monkeypatch.setattr(comparison, "MOST_ELEMENTS", 50_000)
    draw = np.random.default_rng(0)
    first, second = (draw.normal(size=1_000_000).astype(np.float32) for _ in range(2))
    change = compared(onnx_file(w=first), onnx_file(w=second))["w"]
    assert change.measured < 0.1
    assert change.difference == pytest.approx(np.linalg.norm(second - first), rel=0.05)


def test_integers_differ_without_a_norm():
    change = compared(onnx_file(w=np.arange(3)), onnx_file(w=np.arange(1, 4)))["w"]
    assert (change.change, change.difference) == ("changed", None)


def test_numbers_whose_squares_are_beyond_any_are_measured_all_the_same():
    change = compared(onnx_file(w=np.array([1e300, 1.0])), onnx_file(w=np.array([-1e300, 2.0])))["w"]
    assert change.difference == pytest.approx(2e300)
    assert change.norm == pytest.approx(1e300)
