"""Whether a stored tensor is a given tensor's content: the same bytes, or the same elements in another axis order.

Only bit patterns are compared, so NaNs and signed zeros count like any other value. The first and the last element of
a tensor keep their place under every permutation of its axes and every reshape; they make a cheap key that excludes
nearly all candidates before any byte is read.
"""

from collections.abc import Iterable
from itertools import permutations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.conversion.verification.artifact.onnx_tensors import Bytes, StoredTensor
from app.conversion.verification.ledger.sources import raw_bytes, same_bytes, words

ONNX_DTYPES: dict[int, torch.dtype] = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    4: torch.uint16,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    12: torch.uint32,
    13: torch.uint64,
    14: torch.complex64,
    15: torch.complex128,
    16: torch.bfloat16,
    17: torch.float8_e4m3fn,
    18: torch.float8_e4m3fnuz,
    19: torch.float8_e5m2,
    20: torch.float8_e5m2fnuz,
}
"""torch's dtype of each TensorProto.DataType that has one."""

_SAMPLED = 64
"""Elements compared before a permutation's bytes are laid out in full."""
_FEW_INTEGERS = 16
_MOST_AXES = 6
"""Axes longer than 1 up to which all orders are tried (6! = 720)."""

Corners = tuple[int, torch.dtype, bytes, bytes]
"""Number of elements, dtype, bit patterns of the first and the last element."""


def stored_corners(stored: StoredTensor) -> Corners | None:
    """The key of a stored tensor; None when it is empty or of a type that torch has not."""
    dtype = ONNX_DTYPES.get(stored.data_type)
    if dtype is None or stored.numel == 0:
        return None
    size = stored.nbytes // stored.numel
    return stored.numel, dtype, stored.data[:size].tobytes(), stored.data[-size:].tobytes()


def corners(tensor: Tensor) -> Corners | None:
    """The key of a tensor; None when it is empty."""
    if tensor.numel() == 0:
        return None
    first, last = tensor[(0,) * tensor.ndim], tensor[(-1,) * tensor.ndim]
    return tensor.numel(), tensor.dtype, raw_bytes(first).tobytes(), raw_bytes(last).tobytes()


def matching_axes(stored: StoredTensor, tensor: Tensor) -> tuple[int, ...] | None:
    """The order of ``tensor``'s axes that, reshaped to the stored dims, gives the stored bytes.

    The identity is tried first. None when no order does. Axes of length 1 carry no order and keep their places. Dims
    that the identity would give are taken as a sign of it, but for square matrices, which exporters transpose as well.
    """
    identity = tuple(range(tensor.ndim))
    if tensor.numel() == 0 or tensor.element_size() * tensor.numel() != stored.nbytes:
        return None
    if same_bytes(raw_bytes(tensor), stored.data):
        return identity
    long = _long(stored.dims)
    square = len(long) == 2 and long[0] == long[1]
    if long == _long(tuple(tensor.shape)) and not square:
        return None
    for axes in _orders(tuple(tensor.shape), stored.dims):
        view = tensor.permute(axes)
        if _agrees_in_places(words(view), stored.data) and same_bytes(raw_bytes(view), stored.data):
            return axes
    return None


def _orders(shape: tuple[int, ...], dims: tuple[int, ...]) -> Iterable[tuple[int, ...]]:
    """Axis orders other than the identity, those that give the stored dims as they are first."""
    long = [axis for axis, size in enumerate(shape) if size > 1]
    if len(long) > _MOST_AXES:
        return []
    found = []
    for order in permutations(long):
        if list(order) == long:
            continue
        replaced = iter(order)
        found.append(tuple(next(replaced) if axis in long else axis for axis in range(len(shape))))
    return sorted(found, key=lambda axes: _long(tuple(shape[axis] for axis in axes)) != _long(dims))


def _long(shape: tuple[int, ...]) -> list[int]:
    return [size for size in shape if size > 1]


def _agrees_in_places(view: NDArray[np.generic], data: Bytes) -> bool:
    """Whether a few elements spread over the tensor have the stored bit patterns."""
    size = view.dtype.itemsize
    places = np.unique(np.linspace(0, view.size - 1, _SAMPLED, dtype=np.int64))
    stored = data.reshape(-1, size)[places]
    return stored.tobytes() == np.ascontiguousarray(view.flat[places]).tobytes()


def as_tensor(stored: StoredTensor) -> Tensor:
    """The stored tensor as torch reads it, copied to aligned memory."""
    data = torch.from_numpy(stored.data.copy())
    return data.view(ONNX_DTYPES[stored.data_type]).reshape(stored.dims)


def first_and_last(stored: StoredTensor) -> tuple[float, float]:
    """The first and the last element as Python floats."""
    dtype = ONNX_DTYPES[stored.data_type]
    size = dtype.itemsize
    ends = np.concatenate([stored.data[:size], stored.data[-size:]])
    first, last = torch.from_numpy(ends.copy()).view(dtype).double().tolist()
    return first, last


def is_floating(stored: StoredTensor) -> bool:
    """Whether the elements are real or complex numbers, which weights are; integers and booleans are not."""
    dtype = ONNX_DTYPES.get(stored.data_type)
    if dtype is None:
        return stored.data_type in (23, 24, 27, 28)
    return dtype.is_floating_point or dtype.is_complex


def speaks(stored: StoredTensor) -> bool:
    """Whether equal content is no coincidence: real numbers but for scalars, and integers when there are many of them.

    Small integers and scalars of any graph equal some tensor by chance.
    """
    return stored.numel > (1 if is_floating(stored) else _FEW_INTEGERS)


def same_dtype(stored: StoredTensor, dtype: torch.dtype) -> bool:
    """Whether the stored elements are of that dtype."""
    return ONNX_DTYPES.get(stored.data_type) == dtype
