"""A forward that is run for evidence leaves nothing behind in the module, wherever it puts it."""

from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from app.architectures.calling import EagerModel
from app.architectures.module_state import ModuleState, state_kept
from app.conversion.verification.checks.determinism import model_repeats
from app.conversion.verification.oracle import eager, reference
from app.conversion.verification.probes import draw_probe
from app.domain.architecture import Signature
from tests.conversion.verification.subjects import FEATURES

_elsewhere: dict[int, Tensor] = {}


class Cached(nn.Module):
    """Keeps a table that follows its input, in the place that ``put`` chooses, and reads it from there."""

    def __init__(self, start: Any, put: Callable[[Any, Tensor], Any], take: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.place, self.put, self.take = start, put, take
        self.calls = 0
        self.last = nn.Linear(6, 4)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        self.place = self.put(self.place, torch.arange(6).to(dtype=x.dtype, device=x.device) * x.mean())
        self.calls += 1
        return self.last(x + self.take(self.place))


def _into(place: Any, key: Any, value: Any) -> Any:
    place[key] = value
    return place


def _attribute(place: Any, value: Any) -> Any:
    place.table = value
    return place


PLACES: dict[str, Callable[[], Cached]] = {
    "a plain attribute": lambda: Cached(None, lambda _, t: t, lambda p: p),
    "a list bound anew": lambda: Cached([torch.zeros(6)], lambda p, t: [t for _ in p], lambda p: p[0]),
    "a list written into": lambda: Cached([torch.zeros(6)], lambda p, t: _into(p, 0, t), lambda p: p[0]),
    "a list that grows": lambda: Cached([], lambda p, t: [*p, t], lambda p: p[-1]),
    "a tuple": lambda: Cached((torch.zeros(6), 1), lambda p, t: (t, 1), lambda p: p[0]),
    "a dictionary of lists": lambda: Cached({"a": [1]}, lambda p, t: _into(p, "a", [t]), lambda p: p["a"][0]),
    "a list in a dictionary": lambda: Cached({"a": [1]}, lambda p, t: (_into(p["a"], 0, t), p)[1], lambda p: p["a"][0]),
    "an object": lambda: Cached(SimpleNamespace(table=None), _attribute, lambda p: p.table),
}


@pytest.mark.parametrize("place", PLACES)
def test_the_float64_forward_leaves_the_module_as_it_found_it(place: str) -> None:
    module = PLACES[place]()
    x = draw_probe(FEATURES, {"batch": 2}, 1)
    expected = eager(EagerModel(module, FEATURES), x.inputs)["y"]
    calls = module.calls
    taken = reference(EagerModel(module, FEATURES), x)
    assert taken.kind == "fp64", taken.oracle.answer.detours
    assert module.calls == calls + 1  # the float32 one, which is the model's own
    assert type(module.take(module.place)) is Tensor
    assert torch.equal(eager(EagerModel(module, FEATURES), x.inputs)["y"], expected)


def test_what_lies_outside_of_the_module_can_still_be_used_by_a_float32_forward() -> None:
    class Global(nn.Module):
        """Caches by size in a dictionary of its file."""

        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(6, 4)
            self.eval()

        def forward(self, x: Tensor) -> Tensor:
            if x.shape[0] not in _elsewhere:
                _elsewhere[x.shape[0]] = torch.linspace(0, 1, 6).to(x.dtype) * self.last.weight.to(x.dtype).mean()
            return self.last(x + _elsewhere[x.shape[0]])

    module = Global()
    probe = draw_probe(FEATURES, {"batch": 3}, 1)
    expected = eager(EagerModel(module, FEATURES), probe.inputs)["y"]
    _elsewhere.clear()
    with state_kept(module):
        _float64_first(module, FEATURES, probe.inputs)
    again = eager(EagerModel(module, FEATURES), probe.inputs)["y"]
    assert type(again) is Tensor
    assert torch.allclose(again, expected, rtol=1e-6)


def _float64_first(module: nn.Module, signature: Signature, inputs: dict[str, Tensor]) -> None:
    from app.conversion.verification.oracle import _widened
    from app.conversion.verification.promotion import Trace

    _widened(EagerModel(module, signature), inputs, Trace())


def test_only_what_changed_is_bound_anew_and_objects_keep_their_identity() -> None:
    module = nn.Module()
    module.table = table = {"a": [1, 2], "b": {3}}
    inner = table["a"]
    with state_kept(module):
        table["a"].append(5)
        table["b"].add(7)
        table["c"] = 1
        module.other = 2
    assert module.table is table
    assert module.table["a"] is inner
    assert module.table == {"a": [1, 2], "b": {3}}
    assert not hasattr(module, "other")


def test_what_is_written_into_tables_and_queues_is_put_back_even_while_a_trace_is_recorded() -> None:
    module = nn.Module()
    module.counter, module.array, module.queue = torch.zeros(2), np.zeros(2), deque([1], maxlen=2)
    module.fixed = np.broadcast_to(np.zeros(1), 3)
    module.register_buffer("own", torch.zeros(2), persistent=False)
    module.register_buffer("uploaded", torch.zeros(2))

    def run(x: Tensor) -> Tensor:
        state = ModuleState(module)
        for written in (module.counter, module.own, module.uploaded, module.array):
            written += 1
        module.queue.append(2)
        state.restore()
        return x + module.counter

    traced = torch.jit.trace(run, torch.ones(2), check_trace=False)
    assert (module.counter.tolist(), module.own.tolist(), module.array.tolist()) == ([0, 0], [0, 0], [0, 0])
    assert module.queue == deque([1])
    assert module.uploaded.tolist() == [1, 1]
    assert "copy_" not in str(traced.graph)


def test_a_module_that_remembers_in_a_tensor_that_is_no_buffer_does_not_answer_as_it_was_called_before() -> None:
    class WarmingUp(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls = torch.zeros(())
            self.last = nn.Linear(6, 4)
            self.eval()

        def forward(self, x: Tensor) -> Tensor:
            self.calls.add_(1).clamp_(max=2)
            return self.last(x) * self.calls

    module = WarmingUp()
    as_loaded = ModuleState(module)
    taken = [reference(EagerModel(module, FEATURES), draw_probe(FEATURES, {"batch": 2}, seed)) for seed in range(4)]
    assert not model_repeats(EagerModel(module, FEATURES), taken[0], as_loaded)
