"""The state of torch in a verification: given threads, deterministic operators, plain attention; put back afterwards.

Fused attention in eager gives other values at padding than the plain operators (zeros, pytorch issue 97111), in
inference only and only for some shapes. No exported graph holds it, so the model is held against in the plain form.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from app.targets.capturing.attention import plain_attention


@contextmanager
def deterministic_mode(threads: int) -> Iterator[None]:
    """Inside, operators with a deterministic form use it (those without one only warn), and attention is not fused."""
    flags: Any = torch.utils.deterministic  # a module whose attributes are properties, unknown to its type stubs
    before = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        flags.fill_uninitialized_memory,
    )
    torch.set_num_threads(max(1, threads))
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling fresh memory with NaN finds reads of it; it costs a write of every activation and finds nothing here.
    flags.fill_uninitialized_memory = False
    try:
        with plain_attention():
            yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1], warn_only=before[2])
        flags.fill_uninitialized_memory = before[3]
