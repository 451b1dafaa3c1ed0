"""What torch remembers of its recurrent kernels between exports."""

import torch


def forget_recurrent_kernels() -> None:
    """Make torch look them up anew.

    An export may put kernels with a dynamic length in their place (torch/export/_patches.py), but what was looked up
    before stays in the operators' dispatch cache.
    """
    for operator in (torch.ops.aten.lstm.input, torch.ops.aten.gru.input):
        operator._dispatch_cache.clear()
