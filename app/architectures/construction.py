"""Constructing modules without paying for random initialisation.

``torch.device("meta")`` around a constructor is quick but wrong for many architectures: buffers that are not in the
state dict, and tensors kept as plain attributes (anchor lists, relative position indices), lose their values. Here the
constructor runs on the CPU and only what the state dict holds loses its storage: a parameter is moved to meta at the
moment it is registered, so initialisers find nothing to fill, and persistent buffers follow when the module is
complete. Every value that a checkpoint must bring is then on meta, where using it unloaded is an error and not a
random number.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode
from torch.utils import swap_tensors
from torch.utils._pytree import tree_leaves, tree_map_only

from app.domain.errors import RecastError
from app.processes import memory_left

INITIAL_SEED = 0
"""Seed of the random values of an initialised module: the same options give the same values."""
LARGE = 2**26
"""Elements; 256 MB in float32."""
FIRST_VALUES = frozenset({torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn})
"""What constructors make parameters with."""
STATE = ("_parameters", "_buffers")
DEVICE_OF = Tensor.device.__get__


class NeedsValues(Exception):
    """The module computes something from its parameters while it is built, so they must have values by then."""


def skeleton(construct: Callable[[], nn.Module], seed: int = INITIAL_SEED) -> nn.Module:
    """A module in eval mode whose parameters and persistent buffers are on meta; every other tensor is real.

    Falls back to a real construction for a module that needs its parameters' values while it is built, where memory
    allows one. What the constructor draws at random follows from ``seed``; global RNG state is kept. Raises whatever
    the constructor raises.
    """
    parameters = _Parameters()
    try:
        with _seeded(seed), parameters.on_meta(), _WithoutValues():
            module = construct()
        _require_real_constants(module)
    except RecastError:
        raise
    except Exception:  # a constructor that misses values may raise anything; a real fault comes again
        if not parameters.would_fit():
            raise
        module = initialised(construct, seed)
    return _state_to_meta(module.eval())


def outline(construct: Callable[[], nn.Module], seed: int = INITIAL_SEED) -> nn.Module:
    """A module of which names, shapes and dtypes alone are meant: any of its tensors may be without values."""
    try:
        with _seeded(seed), _Parameters().on_meta(), _WithoutValues(large=1):
            return construct()
    except RecastError:
        raise
    except Exception:  # noqa: BLE001 - as above
        return skeleton(construct, seed)


def initialised(construct: Callable[[], nn.Module], seed: int = INITIAL_SEED) -> nn.Module:
    """A module in eval mode with its own random initialisation, that of ``seed``; global RNG state is kept."""
    with _seeded(seed):
        return construct().eval()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]), torch.no_grad():  # without a graph, which would hold the parameters
        torch.manual_seed(seed)
        yield


def replace_tensors(module: nn.Module, others: Mapping[int, Tensor]) -> None:
    """Put other tensors in the place of a module's own, by ``id``, under every name and in every list of its parts.

    A part may keep its parameters in attributes, lists and dictionaries beside the state dict, as LSTMs do.
    """
    seen: set[int] = set()

    def other(value: Any) -> Any:
        if isinstance(value, Tensor):
            return others.get(id(value), value)
        if isinstance(value, dict | list):
            if id(value) in seen:
                return value
            seen.add(id(value))
        if isinstance(value, dict):
            value.update({key: new for key, old in value.items() if (new := other(old)) is not old})
        elif isinstance(value, list):
            value[:] = [other(old) for old in value]
        elif type(value) is tuple and any(isinstance(old, Tensor) for old in value):
            return tuple(other(old) for old in value)
        return value

    for part in module.modules():
        other(vars(part))


class _Parameters:
    """Those that a constructor registers, and what they would take if they had values."""

    def __init__(self) -> None:
        self._bytes = 0

    @contextmanager
    def on_meta(self) -> Iterator[None]:
        """Inside, every one is moved to meta at the moment it is registered."""
        handle = register_module_parameter_registration_hook(self._to_meta)
        try:
            yield
        finally:
            handle.remove()

    def _to_meta(self, _module: nn.Module, _name: str, parameter: nn.Parameter) -> None:
        if isinstance(parameter, nn.UninitializedParameter):
            return
        self._bytes += parameter.nbytes
        # Swapped, not replaced: whoever else holds the parameter holds the same one, and its memory is given back.
        if not parameter.is_meta:
            swap_tensors(parameter, _meta_like(parameter))  # type: ignore[no-untyped-call]

    def would_fit(self) -> bool:
        """Whether so many, with values, take less than half of the memory that is left."""
        free = int(psutil.virtual_memory().available)
        left = memory_left()
        return 2 * self._bytes < (free if left is None else min(free, left))


class _WithoutValues(TorchFunctionMode):
    """Lets constructors run although parameters have no values.

    - In-place operations on a parameter, the initialisers, do nothing.
    - A parameter says that it lives on the CPU, so buffers that are made "where the weights are" get values.
    - A tensor too large to be anything but a parameter is made on meta, so that its size costs nothing; one without
      values from ``large`` elements on.
    - What is computed from a parameter, such as a trial forward that finds an output shape, is computed on meta.
    """

    def __init__(self, large: int = LARGE) -> None:
        super().__init__()
        self._large = large

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        subject = args[0] if args else kwargs.get("tensor")  # torch.nn.init names what it fills
        if isinstance(subject, nn.Parameter) and subject.is_meta:
            if func == DEVICE_OF:
                return torch.device("cpu")
            if _in_place(func.__name__):
                return subject
        if func in FIRST_VALUES and _elements(args) >= (self._large if func is torch.empty else LARGE):
            kwargs = {**kwargs, "device": "meta"}
        try:
            return func(*args, **kwargs)
        except (RuntimeError, NotImplementedError):
            if _writes(func.__name__, kwargs) or not _any_meta((args, kwargs)):
                raise
            return func(*tree_map_only(Tensor, _on_meta, args), **tree_map_only(Tensor, _on_meta, kwargs))


def _elements(sizes: tuple[Any, ...]) -> int:
    return math.prod(size for size in tree_leaves(sizes) if isinstance(size, int))


def _in_place(name: str) -> bool:
    return name.endswith("_") and not name.endswith("__") and name != "requires_grad_"


def _writes(name: str, kwargs: dict[str, Any]) -> bool:
    return _in_place(name) or name.startswith(("__i", "__set")) or kwargs.get("out") is not None


def _any_meta(values: Any) -> bool:
    return any(isinstance(value, Tensor) and value.is_meta for value in tree_leaves(values))


def _on_meta(tensor: Tensor) -> Tensor:
    return tensor.to("meta")


def _meta_like(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def _require_real_constants(module: nn.Module) -> None:
    for name, part in module.named_modules():
        constants = {key: part._buffers[key] for key in part._non_persistent_buffers_set}
        for attribute, value in {**vars(part), **constants}.items():
            parts = (
                value if isinstance(value, list | tuple) else value.values() if isinstance(value, dict) else (value,)
            )
            if attribute not in STATE and any(_is_meta_constant(tensor) for tensor in parts):
                raise NeedsValues(f"{name}.{attribute}")


def _is_meta_constant(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_meta and not isinstance(value, nn.Parameter)


def _state_to_meta(module: nn.Module) -> nn.Module:
    state = [tensor for tensor in module.state_dict(keep_vars=True).values() if isinstance(tensor, Tensor)]
    replace_tensors(module, {id(tensor): _meta_like(tensor) for tensor in state if not tensor.is_meta})
    return module
