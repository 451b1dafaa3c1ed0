"""What a model's Python asks of sizes and values, and where."""

import pytest
import sympy
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._sympy.functions import FloorDiv

from app.architectures.calling import EagerModel
from app.conversion.decisions import search
from app.conversion.decisions.search import find_decisions
from app.conversion.decisions.symbolic_forward import Work
from app.domain.architecture import Axis, InputSpec, Signature

SEQUENCES = Signature(
    inputs=(InputSpec(name="x", shape=("batch", "n", 6)),),
    axes=(Axis(name="batch"), Axis(name="n", sample=16, maximum=500)),
)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(6, 4)
        self.table: Tensor | None = None
        self.eval()


class Long(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(x.relu() if x.shape[1] > 64 else x)


class ByLength(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(x.relu() if len(x[0]) > 64 else x)


class Nested(Net):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] > 64:
            x = x.relu() if x.shape[1] > 200 else x.tanh()
        return self.last(x)


class Plain(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.pad(x, (0, 0, 0, 0)).transpose(0, 1).softmax(-1))


class Keeping(Net):
    def forward(self, x: Tensor) -> Tensor:
        if self.table is None:
            self.table = torch.arange(x.shape[1])
        return self.last(x + self.table[:, None])


class Reading(Net):
    def forward(self, x: Tensor) -> Tensor:
        found = (x[0, :, 0] > 0).nonzero()
        return self.last(x if found.shape[0] else -x)


class OfAWeight(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(x if self.last.bias.sum() > 0 else -x)


def test_a_condition_is_told_with_its_line_and_sizes_on_both_sides() -> None:
    (decision,) = find_decisions(EagerModel(Long(), SEQUENCES)).sizes
    assert decision.condition == "n <= 64"
    assert decision.by_model
    assert str(decision.place).startswith("test_search.py:")
    assert [sizes["n"] for sizes in decision.sides] == [65, 64, 66]


def test_a_size_taken_as_a_number_is_looked_at_where_other_operators_are_called() -> None:
    (decision,) = find_decisions(EagerModel(ByLength(), SEQUENCES)).sizes
    assert decision.sides[0]["n"] > 64


def test_what_is_asked_beyond_the_first_question_is_found() -> None:
    conditions = [decision.condition for decision in find_decisions(EagerModel(Nested(), SEQUENCES)).sizes]
    assert conditions == ["n <= 64", "n <= 200"]


@pytest.mark.parametrize("kind", [Plain, OfAWeight])
def test_a_model_that_decides_on_nothing_of_its_inputs_has_no_decisions(kind: type[Net]) -> None:
    decisions = find_decisions(EagerModel(kind(), SEQUENCES))
    assert (decisions.sizes, decisions.values) == ((), ())


def test_a_size_that_values_decide_is_a_read_of_values() -> None:
    (read,) = find_decisions(EagerModel(Reading(), SEQUENCES)).values
    assert str(read.place).startswith("test_search.py:")


def test_the_module_is_left_as_it_was() -> None:
    module = Keeping()
    find_decisions(EagerModel(module, SEQUENCES))
    assert module.table is None


VOLUMES = Signature(
    inputs=(InputSpec(name="x", shape=("batch", "n", "m", 6)),),
    axes=(Axis(name="batch"), Axis(name="n", sample=16, maximum=99), Axis(name="m", sample=20, maximum=99)),
)


class Square(Net):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] == x.shape[1] and x.shape[1] == x.shape[2]:
            x = x.relu()
        return self.last(x)


class LongAlone(Net):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] == 1:
            return self.last(x.tanh() if x.shape[1] > 64 else x)
        return self.last(x.relu() if x.shape[1] > 64 else x)


@pytest.mark.parametrize(
    ("kind", "side"), [(Square, {"batch": 16, "n": 16, "m": 16}), (LongAlone, {"batch": 1, "n": 65, "m": 20})]
)
def test_what_is_asked_at_equal_sizes_or_at_one_is_found_with_sizes_at_which_it_is_asked(
    kind: type[Net], side: dict[str, int]
) -> None:
    assert side in [sizes for decision in find_decisions(EagerModel(kind(), VOLUMES)).sizes for sizes in decision.sides]


def test_other_sides_that_were_not_followed_are_named_and_still_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "OPERATORS", 0)
    found = find_decisions(EagerModel(Nested(), SEQUENCES))
    assert [(decision.condition, decision.sides[0]["n"]) for decision in found.sizes] == [("n <= 64", 65)]
    assert found.left_out[0] == {"batch": 2, "n": 65}
    assert not found.too_dear


def test_sizes_at_which_operators_were_not_compared_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "OPERATORS", 0)
    assert {17, 500} < {sizes["n"] for sizes in find_decisions(EagerModel(ByLength(), SEQUENCES)).left_out}


def test_a_first_forward_that_is_ended_early_gives_way_to_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "FIRST_SECONDS", 0.0)
    found = find_decisions(EagerModel(Long(), SEQUENCES))
    assert found.too_dear
    assert found.stopped is None
    (decision,) = found.sizes
    assert decision.condition == "n = 16"
    assert min(sizes["n"] for sizes in decision.sides) > 64


def test_what_a_forward_asked_before_it_was_ended_early_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(Net):
        def forward(self, x: Tensor) -> Tensor:
            x = x.relu() if x.shape[1] > 64 else x
            monkeypatch.setattr("time.process_time", lambda: 1e9)
            return self.last(x)

    found = find_decisions(EagerModel(Clock(), SEQUENCES))
    assert found.too_dear
    assert "n <= 64" in [decision.condition for decision in found.sizes]


def test_the_other_sides_of_a_models_own_questions_are_followed_nearest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    class Twice(Net):
        def forward(self, x: Tensor) -> Tensor:
            x = x.tanh() if x.shape[1] > 200 else x
            return self.last(x.relu() if x.shape[1] > 20 else x)

    monkeypatch.setattr(search, "OPERATORS", 1)
    found = find_decisions(EagerModel(Twice(), SEQUENCES))
    assert found.left_out[0] == {"batch": 2, "n": 201}


def test_work_counts_at_sizes_where_a_number_that_the_code_divides_by_is_nought() -> None:
    length = sympy.Symbol("length", integer=True)
    work = Work({(FloorDiv(8 * length, FloorDiv(length, 4)), 2): 3})
    assert work.at({"length": 8}) == 32 * 2 * 3
    assert work.at({"length": 3}) == 2 * 3
