"""Sizes at which a traced model's code takes another way than the one that the trace kept."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_map_only

from app.architectures.calling import bind
from app.architectures.sample import sample_inputs
from app.conversion.exporters.assumed_sizes import ASSUMED_SIZES
from app.conversion.exporters.attention import plain_attention
from app.conversion.exporters.other_sizes import can_be_tried
from app.conversion.exporters.quiet import collected
from app.conversion.exporters.request import SAMPLE_SEED, ExportRequest
from app.conversion.exporters.value_reads import as_if_tracing
from app.domain.architecture import Axis

_FAR = 8
"""How many times the exported size is looked at where an axis declares no greatest one."""


def traced_sizes(request: ExportRequest) -> tuple[str, ...]:
    """A warning for each axis at whose greatest size the code calls other functions than at the size traced.

    The forward runs without data or arithmetic. Where it cannot, nothing is said.
    """
    traced = _called(request, {})
    warnings = []
    for axis in request.signature.axes if traced is not None else ():
        size = axis.maximum or _FAR * axis.sample
        size -= size % axis.multiple_of
        if _called(request, {axis.name: size}) not in (traced, None):
            warnings.append(_warning(axis, size))
    return tuple(warnings)


def _warning(axis: Axis, size: int) -> str:
    words = f"the graph was traced at size {axis.sample}, and the model takes another way at size {size}"
    return f"{ASSUMED_SIZES}: axis {axis.name}: {words}"


def _called(request: ExportRequest, sizes: Mapping[str, int]) -> list[str] | None:
    """The torch functions that the model's code calls at these sizes, in order; None where it cannot be followed."""
    if not can_be_tried(request.signature, sizes):
        return None
    mode, calls = FakeTensorMode(), _Calls()
    try:
        with collected(), plain_attention(), torch.random.fork_rng(devices=[]), torch.no_grad():
            inputs = sample_inputs(request.signature, sizes, torch.Generator().manual_seed(SAMPLE_SEED))
            arguments: tuple[tuple[Any, ...], dict[str, Any]] = bind(request.module, request.signature, inputs)
            args, kwargs = tree_map_only(Tensor, mode.from_tensor, arguments)
            with FakeCopyMode(mode):
                module = copy.deepcopy(request.module)
            with as_if_tracing(), mode, calls:
                module(*args, **kwargs)
    except Exception:  # noqa: BLE001 - whatever the model's code raises without data or at this size
        return None
    return calls.names


class _Calls(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        self.names.append(resolve_name(func) or getattr(func, "__name__", ""))
        return func(*args, **(kwargs or {}))
