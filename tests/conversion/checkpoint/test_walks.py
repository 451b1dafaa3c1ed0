"""Whoever walks what a file holds looks into each dict once, under however many keys it is."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from app.conversion.checkpoint.class_names import class_names
from app.conversion.checkpoint.pickle_values import Made
from app.conversion.checkpoint.stored_tensors import Storage, TensorView
from app.conversion.checkpoint.torch_vocabulary import layers_in
from app.conversion.checkpoint.unwrap import MAX_READINGS, unwrap
from app.domain.errors import NoStateDict


class Counting(dict[str, Any]):
    """A dict that counts how often its items or values are gone through, and its keys are looked for."""

    opened = 0
    asked = 0

    def items(self) -> Any:
        self.opened += 1
        return super().items()

    def values(self) -> Any:
        self.opened += 1
        return super().values()

    def __iter__(self) -> Iterator[str]:
        self.opened += 1
        return super().__iter__()

    def __contains__(self, key: object) -> bool:
        type(self).asked += 1
        return super().__contains__(key)


def view() -> TensorView:
    return TensorView(Storage("0", torch.float32, 4), torch.float32, 0, (1,), (1,))


def test_a_state_dict_under_many_keys_is_looked_into_once() -> None:
    shared = Counting(weight=view())
    found, candidates = unwrap({f"epoch{n}": shared for n in range(1000)})
    assert (found.path, candidates) == (("epoch0",), ("epoch0",))
    assert shared.opened <= 4


def test_what_lies_beside_a_state_dict_that_was_met_before_is_no_state_dict() -> None:
    shared = {"weight": view()}
    found, _ = unwrap({"last": {"model": shared}, "best": {"model": shared, "threshold": view()}})
    assert found.path == ("last", "model")


def test_layers_and_class_names_are_looked_for_once_in_each_dict() -> None:
    shared, names = Counting(epoch=3), ["cat", "dog"]
    root = {"parts": [shared] * 1000, "made": [Made("argparse.Namespace", (shared,))] * 1000}
    assert layers_in(root) == {}
    assert shared.opened <= 2
    shared = Counting(names=names)
    assert class_names({f"part{n}": shared for n in range(1000)}) == ("cat", "dog")
    assert shared.opened == 1


def test_class_names_by_an_index_that_is_none_are_none() -> None:
    nested: tuple[object, ...] = ()
    for _ in range(100):
        nested = (nested, nested)  # its hash would visit 2**100 places
    assert class_names({"class_to_idx": {"cat": []}}) == ()
    assert class_names({"class_to_idx": {"cat": nested}}) == ()
    assert class_names({"class_to_idx": {"dog": 1, "cat": "0"}}) == ("cat", "dog")


def test_how_many_readings_of_a_dotted_path_are_tried_is_bounded() -> None:
    dicts = [Counting() for _ in range(300)]
    for place, each in enumerate(dicts):
        each.update({".".join("a" * n): dicts[(place * 7 + n) % 300] for n in range(1, 20)})
    Counting.asked = 0
    with pytest.raises(NoStateDict):
        unwrap(dicts[0], ".".join("a" * 511))
    assert Counting.asked < MAX_READINGS
