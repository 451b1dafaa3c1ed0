"""torch's fused attention kernels, kept out of exported graphs."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def plain_attention() -> Iterator[None]:
    """Make nn.MultiheadAttention and nn.TransformerEncoder compute in plain operators.

    In inference they may call fused kernels (aten::_native_multi_head_attention, nested tensors), for which ONNX has no
    operator and which fix what they saw of masks. Source: torch/backends/mha.
    """
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
