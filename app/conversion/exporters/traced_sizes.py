"""Sizes at which a traced model's code takes another way than the one that the trace kept."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.overrides import TorchFunctionMode, resolve_name

from app.architectures.calling import bind
from app.architectures.sample import concrete_shape
from app.conversion.exporters.assumed_sizes import ASSUMED_SIZES
from app.conversion.exporters.attention import plain_attention
from app.conversion.exporters.other_sizes import can_be_tried
from app.conversion.exporters.quiet import collected
from app.conversion.exporters.request import ExportRequest
from app.conversion.exporters.value_reads import as_if_tracing
from app.domain.architecture import Axis, Signature

_NEAR = (1, 2, 3)
"""Steps beyond the exported size that are looked at: among them are sizes that 2, 3 or 4 do not divide, or do."""
_FAR = (8, 512)
"""How many times the exported size is looked at where an axis declares no greatest one."""


def traced_sizes(request: ExportRequest) -> tuple[str, ...]:
    """A warning for each axis at one of whose other sizes the code calls other functions than at the size traced.

    The forward runs without data or arithmetic. Where it cannot, nothing is said.
    """
    try:
        forward = _Dataless(request)
    except Exception:  # noqa: BLE001 - whatever a module's parts raise when they are copied
        return ()
    traced = forward.calls({})
    found = ((axis, _other_way(forward, axis, traced)) for axis in request.signature.axes) if traced else ()
    return tuple(_warning(axis, size) for axis, size in found if size is not None)


def _other_way(forward: "_Dataless", axis: Axis, traced: list[str]) -> int | None:
    return next((size for size in _sizes(axis) if forward.calls({axis.name: size}) not in (traced, None)), None)


def _sizes(axis: Axis) -> list[int]:
    """Admissible sizes: next to the one traced, and far from it."""
    step, greatest = axis.multiple_of, axis.maximum
    wanted = [axis.sample + n * step for n in _NEAR]
    wanted += [greatest] if greatest is not None else [times * axis.sample for times in _FAR]
    sizes = dict.fromkeys(size - size % step for size in wanted if greatest is None or size <= greatest)
    return [size for size in sizes if size > 0]


def _warning(axis: Axis, size: int) -> str:
    words = f"the graph was traced at size {axis.sample}, and the model takes another way at size {size}"
    return f"{ASSUMED_SIZES}: axis {axis.name}: {words}"


class _Dataless:
    """The request's module without data, to be run at any size."""

    def __init__(self, request: ExportRequest) -> None:
        self.request = request
        self.mode = FakeTensorMode()
        with FakeCopyMode(self.mode):
            self.module = copy.deepcopy(request.module)

    def calls(self, sizes: Mapping[str, int]) -> list[str] | None:
        """The torch functions that the code calls at these sizes, in order; None where it cannot be followed."""
        signature, calls = self.request.signature, _Calls()
        if not can_be_tried(signature, sizes):
            return None
        try:
            with collected(), plain_attention(), torch.random.fork_rng(devices=[]), torch.no_grad(), self.mode:
                args, kwargs = bind(self.module, signature, _shapes(signature, sizes))
                with as_if_tracing(), calls:
                    self.module(*args, **kwargs)
        except Exception:  # noqa: BLE001 - whatever the model's code raises without data or at this size
            return None
        return calls.names


def _shapes(signature: Signature, sizes: Mapping[str, int]) -> dict[str, Tensor]:
    """An empty tensor for each input."""
    return {
        spec.name: torch.empty(concrete_shape(signature, spec, sizes), dtype=getattr(torch, spec.dtype))
        for spec in signature.inputs
    }


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
