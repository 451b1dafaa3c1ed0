"""Which tensors act on the outputs, found by giving them other values."""

import torch
from torch import Tensor, nn

from app.architectures.calling import EagerModel
from app.architectures.named_tensors import named_tensors
from app.conversion.influence import MOST_NAMED, acting
from tests.conversion.verification.subjects import FEATURES


class Sums(nn.Module):
    """A sum of weights, beside weights that no output sees."""

    def __init__(self, used: int, spare: int) -> None:
        super().__init__()
        self.used = nn.ParameterList(torch.ones(6) for _ in range(used))
        self.spare = nn.ParameterList(torch.ones(6) for _ in range(spare))
        self.scales = [torch.ones(6)]

    def forward(self, x: Tensor) -> Tensor:
        return x + sum(self.used) * self.scales[0]


class Returned(Sums):
    def forward(self, x: Tensor) -> Tensor:
        return self.used[0]


class BoundAnew(Sums):
    """Counts in a buffer that it binds anew in every forward, and adds."""

    def __init__(self) -> None:
        super().__init__(1, 0)
        self.register_buffer("count", torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        self.count = self.count + 1
        return x + self.count


class Raising(Sums):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("not these inputs")


def test_what_acts_is_told_by_name_and_left_as_it_was() -> None:
    module = Sums(3, 40)
    assert acting(EagerModel(module, FEATURES), named_tensors(module)) == ("used.0", "used.1", "used.2")
    assert all(bool((tensor == 1).all()) for tensor in named_tensors(module).values())


def test_tensors_that_no_state_dict_holds_are_tried_too() -> None:
    module = Sums(1, 1)
    held = {"scales.0": module.scales[0], "spare.0": module.spare[0]}
    assert acting(EagerModel(module, FEATURES), held) == ("scales.0",)


def test_a_tensor_that_is_an_output_itself_acts() -> None:
    module = Returned(1, 1)
    assert acting(EagerModel(module, FEATURES), named_tensors(module)) == ("used.0",)


def test_what_a_forward_binds_anew_is_what_it_was_before_the_next() -> None:
    module = BoundAnew()
    count = module.count
    assert acting(EagerModel(module, FEATURES), named_tensors(module)) == ("count",)
    assert module.count is count


def test_of_very_many_that_act_none_is_left_out() -> None:
    module = Sums(3 * MOST_NAMED, 2)
    found = acting(EagerModel(module, FEATURES), named_tensors(module))
    assert {f"used.{number}" for number in range(3 * MOST_NAMED)} <= set(found)


def test_where_the_forward_raises_everything_counts_as_acting() -> None:
    module = Raising(1, 1)
    assert set(acting(EagerModel(module, FEATURES), named_tensors(module))) == {"used.0", "spare.0"}
