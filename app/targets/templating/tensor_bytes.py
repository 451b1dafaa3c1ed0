"""A tensor's bytes as they lie in memory, and the names of its dtype in torch and ONNX."""

import torch
from onnx_ir import DataType, TensorProtocol
from torch import Tensor

ONNX_DTYPES: dict[str, int] = {
    "float16": DataType.FLOAT16,
    "bfloat16": DataType.BFLOAT16,
    "float32": DataType.FLOAT,
    "float64": DataType.DOUBLE,
    "int8": DataType.INT8,
    "uint8": DataType.UINT8,
    "int16": DataType.INT16,
    "uint16": DataType.UINT16,
    "int32": DataType.INT32,
    "uint32": DataType.UINT32,
    "int64": DataType.INT64,
    "uint64": DataType.UINT64,
    "bool": DataType.BOOL,
    "float8_e4m3fn": DataType.FLOAT8E4M3FN,
    "float8_e5m2": DataType.FLOAT8E5M2,
}
"""torch's name of a dtype, without its prefix, to the number in TensorProto.DataType. Complex tensors have none."""

TORCH_DTYPES = {number: name for name, number in ONNX_DTYPES.items()}


FLOATS = frozenset(number for name, number in ONNX_DTYPES.items() if "float" in name)


def dtype_name(dtype: torch.dtype) -> str:
    """torch's name without its prefix, such as "float32"."""
    return str(dtype).removeprefix("torch.")


def dtype_of(name: str) -> torch.dtype:
    """The dtype of that name; ValueError for another attribute of torch."""
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"torch has no dtype {name!r}")
    return dtype


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a CPU tensor in row-major order: no copy when it is contiguous, else one copy of this tensor."""
    flat = tensor.detach().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def to_torch(tensor: TensorProtocol) -> Tensor:
    """A copy of an ONNX tensor of one of the dtypes above."""
    dtype = dtype_of(TORCH_DTYPES[tensor.dtype])
    shape = [int(extent) for extent in tensor.shape.numpy()]
    content = bytearray(tensor.tobytes())
    return torch.frombuffer(content, dtype=dtype).reshape(shape) if content else torch.empty(shape, dtype=dtype)
