"""What the globals of torch.save's pickles mean: tensors over storages of the file, containers, and inert objects.

The calls are those of torch/_utils.py and torch/_tensor.py. None of them is made: each rule turns arguments into a view
of a storage that the file holds, so that no tensor can come from anywhere else.
"""

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

import torch

from app.conversion.checkpoint.inert_names import is_inert
from app.conversion.checkpoint.names import check_key, shown
from app.conversion.checkpoint.pickle_values import Made, Name, Ordered, OtherKey, Rule, Vocabulary
from app.conversion.checkpoint.stored_tensors import DENSE_DTYPES, Storage, Stored, TensorView, Unreadable
from app.domain.errors import CorruptCheckpoint, PickledModule, RecastError, UnsafeCheckpoint

_DTYPES: Mapping[str, torch.dtype] = {
    str(dtype): dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)
}
_STORAGE_DTYPES: Mapping[str, torch.dtype] = torch.storage._storage_type_to_dtype_map()
_SEQUENCE = (tuple, list)
_LOOKED_INTO = (*_SEQUENCE, dict, Made, Stored)
_UNTYPED = "UntypedStorage"

# Library modules whose classes are layers: an object of one in a pickle means that a whole model was saved.
_LAYER_MODULES = ("torch.nn.modules.", "torch.fx.graph_module", "torchvision.models.", "timm.", "transformers.models.")
_LOSSES = "torch.nn.modules.loss."


def storage_dtype(name: object) -> torch.dtype:
    """The dtype of a storage class named in a pickle; bytes for the untyped one. Raises CorruptCheckpoint."""
    if not isinstance(name, Name):
        raise CorruptCheckpoint("The pickle declares a storage of no type.")
    kind = name.dotted.rpartition(".")[2]
    dtype = torch.uint8 if kind == _UNTYPED else _STORAGE_DTYPES.get(kind)
    if dtype is None:
        raise CorruptCheckpoint(f"The pickle declares a storage of type {shown(name.dotted)}.")
    return dtype


# --- rules ---------------------------------------------------------------------------------------------------------


def _view(place: tuple[Any, ...], dtype: torch.dtype | None, attributes: object) -> Stored:
    storage, offset, shape, stride = place
    if not (isinstance(storage, Storage) and isinstance(shape, _SEQUENCE) and isinstance(stride, _SEQUENCE)):
        raise CorruptCheckpoint("The pickle builds a tensor of what is no storage, shape and stride.")
    dtype = dtype or storage.dtype
    if str(dtype) not in DENSE_DTYPES:
        quantized = str(dtype).startswith(("torch.q", "torch.quint"))
        return _QUANTIZED if quantized else Unreadable(f"of {dtype}, of which no model computes")
    if isinstance(attributes, dict) and any(attributes.get(bit) for bit in ("conj", "neg")):
        return Unreadable("a lazy view", "Save tensor.resolve_conj().resolve_neg().")
    return TensorView(storage, dtype, offset, tuple(shape), tuple(stride))


def _tensor(arguments: tuple[Any, ...]) -> Stored:
    """(storage, storage_offset, size, stride[, requires_grad, backward_hooks[, metadata]])"""
    rest = arguments[4:]
    return _view(arguments[:4], None, rest[2] if len(rest) > 2 else None)


def _tensor_with_dtype(arguments: tuple[Any, ...]) -> Stored:
    """(storage, storage_offset, size, stride, requires_grad, backward_hooks, dtype[, metadata])"""
    _, _, dtype, *rest = arguments[4:]
    if not isinstance(dtype, Name) or dtype.dotted not in _DTYPES:
        raise CorruptCheckpoint("The pickle builds a tensor without a dtype.")
    return _view(arguments[:4], _DTYPES[dtype.dotted], rest[0] if rest else None)


def _as_first(arguments: tuple[Any, ...]) -> Stored:
    """(data, ...): parameters and tensors of other devices are the tensor that they are made of."""
    if not arguments or not isinstance(arguments[0], (TensorView, Unreadable)):
        raise UnsafeCheckpoint("The pickle makes a tensor whose values are not in the file.", unsafe_globals=[])
    return arguments[0]


def _device_tensor(arguments: tuple[Any, ...]) -> Stored:
    """(data, dtype, device, requires_grad)"""
    data, dtype = arguments[0], arguments[1]
    if isinstance(data, TensorView) and isinstance(dtype, Name) and dtype.dotted == str(data.dtype):
        return data
    return Unreadable("of a device of its own", "Save tensor.cpu().")


def _with_type(arguments: tuple[Any, ...]) -> object:
    """(function, type, arguments, state): a subclass of Tensor, or a tensor with attributes."""
    function, _, inner, _ = arguments
    rule = _TENSORS.get(function.dotted) if isinstance(function, Name) else None
    if rule is None or rule is _with_type or not isinstance(inner, tuple):
        raise UnsafeCheckpoint("The pickle makes a tensor by a function that makes none.", unsafe_globals=[])
    return rule(inner)


def _dictionary(arguments: tuple[Any, ...]) -> Ordered:
    """OrderedDict, defaultdict, Counter; Python 2 gave the items as an argument, as pairs or as a dict."""
    made = Ordered()
    for argument in arguments:
        if isinstance(argument, dict):
            made.update(argument)
        elif isinstance(argument, list):
            made.update((check_key(key) if isinstance(key, str) else OtherKey(key), value) for key, value in argument)
    return made


def _size(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(arguments[0]) if arguments else ()


def _encoded(arguments: tuple[Any, ...]) -> bytes:
    """_codecs.encode(text, "latin1") is how protocol 2 writes bytes."""
    text, *encoding = arguments
    if not isinstance(text, str) or encoding not in (["latin1"], ["latin-1"]):
        raise UnsafeCheckpoint("The pickle encodes text as no pickle of bytes does.", unsafe_globals=["_codecs.encode"])
    return text.encode("latin-1")


_QUANTIZED = Unreadable("quantized", "Save the weights before quantization.")

_TENSORS: Mapping[str, Rule] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_with_dtype,
    "torch._utils._rebuild_parameter": _as_first,
    "torch._utils._rebuild_parameter_with_state": _as_first,
    "torch.nn.parameter.Parameter": _as_first,
    "torch.nn.parameter.Buffer": _as_first,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _device_tensor,
    "torch._utils._rebuild_device_tensor_from_numpy": _device_tensor,
    "torch._utils._rebuild_xla_tensor": _device_tensor,
    "torch._utils._rebuild_qtensor": lambda _: _QUANTIZED,
    "torch._utils._rebuild_sparse_tensor": lambda _: Unreadable("sparse", "Save tensor.to_dense()."),
    "torch._utils._rebuild_nested_tensor": lambda _: Unreadable("nested", "Save its tensors apart."),
    "torch._utils._rebuild_meta_tensor_no_storage": lambda _: Unreadable("without data (device meta)"),
    "torch._utils._rebuild_wrapper_subclass": lambda _: Unreadable("a wrapper of other tensors"),
    "torch._tensor._rebuild_from_type_v2": _with_type,
}

_RULES: Mapping[str, Rule] = {
    **_TENSORS,
    "collections.OrderedDict": _dictionary,
    "collections.Counter": _dictionary,
    "collections.defaultdict": _dictionary,
    "torch.Size": _size,
    "_codecs.encode": _encoded,
}


def _torch_values() -> frozenset[str]:
    """What torch.save names without calling it: dtypes, storage and tensor classes, layouts, schemes."""
    schemes = ("torch.per_tensor_affine", "torch.per_tensor_symmetric", "torch.per_channel_affine")
    layouts = [str(value) for value in vars(torch).values() if isinstance(value, (torch.layout, torch.memory_format))]
    kinds = [kind.removesuffix("Storage") for kind in _STORAGE_DTYPES]
    places = ("torch", "torch.cuda", "torch.sparse", "torch.cuda.sparse")
    classes = [f"{place}.{kind}{suffix}" for place in places for kind in kinds for suffix in ("Storage", "Tensor")]
    untyped = [f"{place}.{kind}" for place in ("torch", "torch.storage") for kind in (_UNTYPED, "TypedStorage")]
    return frozenset([*_DTYPES, *classes, *untyped, *schemes, *layouts, "torch.Tensor", "torch._tensor.Tensor"])


def _torch_classes() -> frozenset[str]:
    """Layers, losses, functions, optimisers and schedules of torch, which hyper-parameters name or hold."""
    holders = (torch.nn, torch.nn.functional, torch.optim, torch.optim.lr_scheduler)
    found = {value for holder in holders for name, value in vars(holder).items() if name[0] != "_" and callable(value)}
    names = {f"{value.__module__}.{value.__name__}" for value in found if hasattr(value, "__name__")}
    return frozenset(name for name in names if name.startswith(("torch.nn.", "torch.optim.", "torch._C._nn.")))


_CLASSES = _torch_classes()
TORCH = Vocabulary(_RULES, _torch_values(), lambda name: name in _CLASSES or is_inert(name))


# --- refusals ------------------------------------------------------------------------------------------------------


def layers_in(root: object) -> dict[str, bool]:
    """The classes of the layers that an object holds, and whether a tensor hangs on one of that class. Linear work."""
    found: dict[str, bool] = {}
    seen: set[tuple[int, bool]] = set()
    ahead: list[tuple[object, str | None]] = [(root, None)]
    while ahead:
        node, within = ahead.pop()
        if within is not None and isinstance(node, Stored):
            found[within] = True
        if isinstance(node, Made) and _is_layer(node.by):
            within = node.by
            found.setdefault(within, False)
        if (id(node), within is not None) not in seen:
            seen.add((id(node), within is not None))
            ahead.extend((each, within) for each in _inside(node) if isinstance(each, _LOOKED_INTO))
    return found


def _inside(node: object) -> Iterable[object]:
    if isinstance(node, Made):
        return chain(node.arguments, (node.state,))
    if isinstance(node, dict):
        return node.values()
    return node if isinstance(node, _SEQUENCE) else ()


def _is_layer(name: str) -> bool:
    return name.startswith(_LAYER_MODULES) and not name.startswith(_LOSSES)


def refusal(unsafe: list[str], unread: Iterable[str] = ()) -> RecastError:
    """The error for a pickle that needs more than tensors, plain containers and inert objects."""
    layers = [name for name in dict.fromkeys((*unsafe, *unread)) if _is_layer(name)]
    if layers:
        return PickledModule(f"The pickle rebuilds a model out of {', '.join(layers[:3])}.", unsafe_globals=unsafe)
    return UnsafeCheckpoint(
        f"The pickle refers to {', '.join(unsafe[:5])}{' ...' if len(unsafe) > 5 else ''}; Recast imports nothing that "
        "a file names.",
        hint=_RESAVE,
        unsafe_globals=unsafe,
    )


_RESAVE = (
    "Save the weights alone, on a machine that trusts the file: c = torch.load(path, weights_only=False); then "
    "torch.save(c.state_dict(), 'weights.pth') where c is a model, and torch.save(c['state_dict'], 'weights.pth') "
    "with the key under which your file keeps them where c is a dict."
)
