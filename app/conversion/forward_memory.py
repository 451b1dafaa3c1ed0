"""What one forward holds in memory at once: found without data, before anything of that size is made."""

import math
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from app.architectures.calling import EagerModel, bind
from app.architectures.module_state import state_kept
from app.domain.conversion import Stage
from app.domain.errors import MemoryEstimateExceeded
from app.processes import memory_left
from app.targets.capturing.attention import plain_attention
from app.targets.request import ExportRequest

LARGE = 1 << 22
"""Elements of the sample inputs from which on it is looked at: below, what a conversion has in any case suffices."""
SECONDS = 20.0
"""Processor time that looking may take; what was seen by then is held at the least."""


def refuse_beyond_limit(request: ExportRequest) -> None:
    """Raises MemoryEstimateExceeded where the model itself, run once on the sample inputs, would hold more than this
    process may have. What exporters and runtimes need beside that is left to the process's limit."""
    limit = memory_left()
    if limit is None or sum(tensor.numel() for tensor in request.sample.values()) < LARGE:
        return
    held = held_by_forward(request, request.sample)
    if held > limit:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in request.sample.items())
        raise MemoryEstimateExceeded(
            f"One run of the model on {shapes} holds {held:,} bytes at once; the conversion may use {limit:,} more.",
            stage=Stage.load.value,
            hint="Ask for smaller example_shapes; axes that vary admit larger sizes all the same.",
            estimated_bytes=held,
            budget_bytes=limit,
        )


def held_by_forward(model: EagerModel, inputs: Mapping[str, Tensor]) -> int:
    """Bytes of the tensors that one forward makes and holds at once, at most; as far as it can be followed without
    values, which is a lower bound."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    held = _Held(time.process_time() + SECONDS)
    with torch.random.fork_rng(devices=[]), plain_attention(), state_kept(model.module):
        args, kwargs = bind(model, {name: mode.from_tensor(tensor) for name, tensor in inputs.items()})
        with suppress(Exception), mode, torch.no_grad(), held:
            model.module(*args, **kwargs)
    return held.most


class _Held(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the memory behind what operators give, until nobody holds it any more."""

    def __init__(self, until: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = 0
        self._until = until
        self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if time.process_time() > self._until:
            raise TimeoutError
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, math.prod(tensor.shape) and storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self._now += size
        self.most = max(self.most, self._now)
        weakref.finalize(storage, self._let_go, key, size)

    def _let_go(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size
