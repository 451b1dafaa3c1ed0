"""Which outputs of a model an input reaches: through operators, views, in-place writes and values that Python read."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from app.architectures.calling import EagerModel, bind, flatten
from app.targets.operators import SHAPE_ONLY, SHOWN, name_of


def reached_outputs(model: EagerModel, inputs: Mapping[str, Tensor]) -> dict[str, bool]:
    """Of each output by name, whether any element of an input may have come into it. Raises what the forward raises."""
    args, kwargs = bind(model, {name: tensor.clone() for name, tensor in inputs.items()})
    reach = _Reach(leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.inference_mode(), reach:
            result = model.module(*args, **kwargs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    return {name: reach.read or reach.reaches(value) for name, value in flatten(result, model.signature).items()}


class _Reach(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Marks the memory that values of the inputs have come into."""

    def __init__(self, inputs: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.read = False
        """Whether Python has seen a value of the inputs: what it did with it cannot be followed."""
        self._marked: dict[int, StorageWeakRef] = {}
        for tensor in inputs:
            self._mark(tensor)

    def reaches(self, tensor: Tensor) -> bool:
        known = self._marked.get(tensor.untyped_storage()._cdata)
        return known is not None and not known.expired()  # type: ignore[no-untyped-call]

    def _mark(self, value: object) -> None:
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            self._marked[storage._cdata] = StorageWeakRef(storage)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        reached = name_of(func) not in SHAPE_ONLY and any(self.reaches(tensor) for tensor in given)
        result = func(*args, **kwargs)
        if reached:
            self.read = self.read or name_of(func) in SHOWN
            for leaf in tree_leaves((result, self._written(func, args, kwargs))):
                self._mark(leaf)
        return result

    def _written(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        schema = getattr(func, "_schema", None)
        named = enumerate(schema.arguments if schema is not None else ())
        return [args[at] if at < len(args) else kwargs.get(a.name) for at, a in named if a.is_write]
