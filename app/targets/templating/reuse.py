"""Which templates may serve other weights than those that were captured, and weights that hide among constants.

Ways in which weights could steer a graph or hide in it, and what is done about each:

- The forward pass reads a value (``if self.scale > 1``). Tensors without data raise there. torch.export captures with
  such tensors, so its graphs are free of this; ``steering`` runs a module that was traced with them.
- Loading changes the module. ``structure_digest`` (structure.py) is compared whenever a template is filled.
- State that is no tensor (``get_extra_state``). ``foreign_state`` finds it.
- The forward pass writes into a weight: the graph then holds what was made of it, and the upload is another after the
  first run. ``steering`` sees it in traced modules, ``rewriting`` in others, in every branch of compiled code.
- A weight that the exporter took for a constant. ``baked_weight`` finds it; such a graph is no template at all.
"""

import copy
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils._pytree import tree_map_only

from app.architectures.calling import bind, call
from app.domain.errors import ExportFailed
from app.targets.capturing.quiet import first_lines
from app.targets.capturing.weight_writes import watching, written_by_code
from app.targets.request import ExportRequest

SMALLEST_TELLING = 16
"""Elements below which two float tensors may be equal by chance of design (scales, means, small tables)."""


def against_reuse(request: ExportRequest, compiled: torch.jit.ScriptModule | None = None) -> str | None:
    """Why other weights may not use a graph that was captured with values at hand, in words; None if they may.

    ``compiled`` is the module's code in TorchScript where that was captured, None for a trace. One forward pass without
    data or arithmetic; run it before or after the capture.
    """
    steered = steering(request) if compiled is None else rewriting(request, compiled)
    return foreign_state(request.module) or steered


def against_reuse_at(samples: Iterable[Mapping[str, Tensor]], request: ExportRequest) -> str | None:
    """The first reason of ``against_reuse`` over the samples, inputs by name, that a trace was made with."""
    steered = (against_reuse(replace(request, sample=dict(sample))) for sample in samples)
    return next((why for why in steered if why is not None), None)


def foreign_state(module: nn.Module) -> str | None:
    """State-dict entries that are not tensors, in words; None if all are."""
    foreign = [key for key, value in module.state_dict(keep_vars=True).items() if not isinstance(value, Tensor)]
    return f"state that is not a tensor: {', '.join(foreign)}" if foreign else None


def steering(request: ExportRequest) -> str | None:
    """Why a trace may depend on values, in words; None if the forward pass reads none and rewrites no weight.

    The forward pass runs on tensors that have shapes but no data, for weights and inputs alike. A module that branches
    on a value, or takes one out as a number, fails there. So does an operator that torch knows no shapes for: then
    nothing is known, and the module counts as unsuitable.
    """
    try:
        written = _written_without_data(request)
    except Exception as error:  # noqa: BLE001 - whatever the model's code raises without data is the answer
        return f"the forward pass needs values, not only shapes: {type(error).__name__}: {first_lines(str(error), 1)}"
    return _rewritten(request.module, written)


def rewriting(request: ExportRequest, compiled: torch.jit.ScriptModule | None = None) -> str | None:
    """Which tensors the forward pass writes into, in words; None if it leaves them as they are.

    One that needs no values runs without. Of any other, every branch of ``compiled``, the module's code in TorchScript,
    is looked at, or else it runs with data: one that fails with data too cannot be exported.
    """
    try:
        return _rewritten(request.module, _written_without_data(request))
    except Exception:  # noqa: BLE001 - whatever the model's code raises without data
        seen = _rewritten(request.module, _written_with_data(request))
    return seen or (_written_in_code(compiled) if compiled is not None else None)


def _written_in_code(compiled: torch.jit.ScriptModule) -> str | None:
    try:
        written = written_by_code(compiled)
    except Exception as error:  # noqa: BLE001 - torch.jit has no list of what it raises
        return f"what the compiled code writes into cannot be told: {type(error).__name__}"
    return _words(written) if written else None


def _written_without_data(request: ExportRequest) -> set[str]:
    """What the forward pass writes into, run on tensors that have shapes only. Raises whatever it raises."""
    mode = FakeTensorMode()
    arguments: tuple[tuple[Any, ...], dict[str, Any]] = bind(request, request.sample)
    args, kwargs = tree_map_only(Tensor, mode.from_tensor, arguments)
    with FakeCopyMode(mode):
        module = copy.deepcopy(request.module)
    with mode, torch.no_grad(), watching(module) as written:
        module(*args, **kwargs)
    return written


def _written_with_data(request: ExportRequest) -> set[str]:
    with suppress(Exception), watching(request.module) as written:
        call(request, request.sample)
    return written


def _rewritten(module: nn.Module, names: set[str]) -> str | None:
    """In words, what of the state dict is among the names; tables that a module keeps for itself it may renew."""
    weights = names & module.state_dict(keep_vars=True).keys()
    return _words(weights) if weights else None


def _words(names: set[str]) -> str:
    return f"the forward pass writes into its own tensors: {', '.join(sorted(names)[:5])}"


def refuse_baked_weight(constants: Mapping[str, Tensor], module: nn.Module) -> None:
    """Raise ExportFailed if a weight stands among the constants of a graph as it was captured.

    The capture's own constants are asked for: they hold a weight whole, whatever the graph does with it afterwards.
    """
    state = {key: tensor for key, tensor in module.state_dict().items() if isinstance(tensor, Tensor)}
    baked = baked_weight(constants, state)
    if baked is not None:
        raise ExportFailed(baked, stage="export", hint="Use weights in forward as they are, without .data or .numpy().")


def baked_weight(constants: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str | None:
    """A weight that stands among a graph's constants, in any order of its elements, in words; None if there is none."""
    by_size: dict[tuple[torch.dtype, int], list[str]] = {}
    for key, tensor in state.items():
        by_size.setdefault((tensor.dtype, tensor.numel()), []).append(key)
    for name, constant in constants.items():
        if not constant.is_floating_point() or constant.numel() < SMALLEST_TELLING:
            continue
        sorted_constant = constant.detach().flatten().sort().values
        if sorted_constant[0] == sorted_constant[-1]:
            continue
        for key in by_size.get((constant.dtype, constant.numel()), []):
            if torch.equal(sorted_constant, state[key].detach().flatten().sort().values):
                return f"the exporter made a constant ({name}) of the weight {key}"
    return None
