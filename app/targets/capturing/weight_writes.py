"""Which of its own tensors a module writes into as it runs: ``self.weight.clamp_()``, an embedding's max_norm, a slice.

An operator is seen by what its schema says it writes, whatever view of a tensor it was given (``w[0]``, ``w.t()``,
``w.data``), on tensors with and without data. The operators whose schema is silent (normalisation in training mode) are
seen by torch's own count of writes, and an attribute that was bound anew by looking at it again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from app.architectures.named_tensors import named_tensors

_Reach = tuple[int, int]
"""First byte of a tensor in its storage, and the byte behind its last."""


@contextmanager
def watching(module: nn.Module) -> Iterator[set[str]]:
    """Names of the parameters and buffers that are written into meanwhile; complete when the context has ended."""
    placed = named_tensors(module)
    # Torch keeps no count for tensors made in inference mode.
    versions = {name: tensor._version for name, tensor in placed.items() if not tensor.is_inference()}
    watch = _Watch(placed)
    try:
        with watch:
            yield watch.written
    finally:
        watch.written.update(name for name, version in versions.items() if placed[name]._version != version)
        after = named_tensors(module)
        watch.written.update(name for name, tensor in placed.items() if after.get(name) is not tensor)


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, placed: dict[str, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.written: set[str] = set()
        self.reaches: dict[int, list[tuple[str, _Reach]]] = {}
        for name, tensor in placed.items():
            if _has_storage(tensor):
                self.reaches.setdefault(_storage(tensor), []).append((name, _reach(tensor)))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        schema = getattr(func, "_schema", None)  # operators that take functions have none
        for position, argument in enumerate(schema.arguments if schema is not None and schema.is_mutable else ()):
            if argument.is_write:
                self._note(args[position] if position < len(args) else kwargs.get(argument.name))
        return func(*args, **kwargs)

    def _note(self, given: object) -> None:
        for tensor in tree_leaves(given):
            if isinstance(tensor, Tensor) and _has_storage(tensor):
                start, end = _reach(tensor)
                for name, (first, behind) in self.reaches.get(_storage(tensor), ()):
                    if first < end and start < behind:
                        self.written.add(name)


def written_by_code(module: torch.jit.ScriptModule) -> set[str]:
    """Names, without their path, of the tensors that compiled code may write into in any branch that eval mode leaves.

    torch.jit.freeze turns every attribute into a constant but those that the code may change. Raises what it raises.
    """
    frozen: Any = torch._C._freeze_module(module._c, [])  # torch.jit.freeze refuses what is frozen already
    graph = frozen._get_method("forward").inlined_graph  # held here: nodes do not keep their graph alive
    read = [node for node in graph.findAllNodes("prim::GetAttr", recurse=True) if "Tensor" in str(node.output().type())]
    return {node.s("name") for node in (*read, *graph.findAllNodes("prim::SetAttr", recurse=True))}


def _has_storage(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and tensor.numel() > 0


def _storage(tensor: Tensor) -> int:
    identity: int = tensor.untyped_storage()._cdata
    return identity


def _reach(tensor: Tensor) -> _Reach:
    last = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    start, item = int(tensor.storage_offset()), tensor.element_size()
    return start * item, (start + int(last) + 1) * item
