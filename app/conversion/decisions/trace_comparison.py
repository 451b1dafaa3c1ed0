"""Sizes at which tracing a model gives another graph: where the symbolic forward cannot be followed to its end.

A trace keeps sizes as operators on shapes, so traces of one program at two sizes differ only where Python decided on a
size or took it as a number.
"""

import re
from collections.abc import Iterable, Mapping

import torch

from app.architectures.calling import EagerModel
from app.architectures.module_state import state_kept
from app.architectures.sample import sample_inputs
from app.targets.capturing.attention import plain_attention
from app.targets.capturing.flat_module import FlatModule
from app.targets.capturing.tracing import tracing

_SEED = 1
_TYPE = re.compile(r" : [^=\n]*(?= =)| : [^,)\n]*(?=[,)])")
_NAME = re.compile(r"%[\w.]+")


def differing_sizes(
    model: EagerModel, start: Mapping[str, int], others: Iterable[Mapping[str, int]]
) -> list[dict[str, int]]:
    """Those of ``others`` at which the model, as it was loaded, is traced to another graph than at ``start``.

    Sizes that the model does not take are left out; so are all where it takes not even ``start``.
    """
    traced = _graph(model, start)
    if traced is None:
        return []
    graphs = ((sizes, _graph(model, sizes)) for sizes in others)
    return [dict(sizes) for sizes, graph in graphs if graph not in (traced, None)]


def _graph(model: EagerModel, sizes: Mapping[str, int]) -> str | None:
    inputs = sample_inputs(model.signature, sizes, torch.Generator().manual_seed(_SEED))
    flat = FlatModule(model).eval()
    try:
        with state_kept(model.module), torch.random.fork_rng(devices=[]), tracing(), plain_attention(), torch.no_grad():
            traced = torch.jit.trace(  # type: ignore[no-untyped-call]
                flat, tuple(inputs[spec.name] for spec in model.signature.inputs), check_trace=False, strict=False
            )
            return _comparable(traced.inlined_graph)
    except Exception:  # noqa: BLE001 - whatever the model raises at sizes that it does not take
        return None


def _comparable(graph: torch.Graph) -> str:
    """The graph without shapes, sources, and names that count what was traced before."""
    torch._C._jit_pass_erase_shape_information(graph)
    numbers: dict[str, str] = {}
    bare = _TYPE.sub("", graph.str(False))  # type: ignore[attr-defined]
    return _NAME.sub(lambda name: numbers.setdefault(name.group(), f"%{len(numbers)}"), bare)
