"""NaN and infinities among the weights. Reads every value, so it is asked for apart from opening."""

from collections.abc import Mapping

import torch


def non_finite_tensors(tensors: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
    """Names of the tensors that hold a NaN or an infinity.

    A finite sum proves a tensor finite at the cost of one pass; only a sum that is not finite is looked at again.
    """
    return tuple(
        name
        for name, tensor in tensors.items()
        if tensor.is_floating_point()
        and not torch.isfinite(tensor.sum(dtype=torch.float32))
        and not torch.isfinite(tensor.float()).all()
    )
