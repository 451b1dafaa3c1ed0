"""A side that was wrong somewhere is parted where the model's code asks, and nowhere else."""

import pytest

from app.conversion.decisions.search import SizeDecision
from app.conversion.joining import MOST_SIDES, Outcome, divided
from app.targets.capturing.side import Side

SHORT = SizeDecision("length <= 64", None, True, ({"batch": 2, "length": 65},), "length <= 64")
EVEN = SizeDecision("(length % 2) == 0", None, True, ({"batch": 2, "length": 11},), "length % 2 == 0")
UNWRITTEN = SizeDecision("length = 10", None, False, ({"batch": 2, "length": 12},))
START = Side({"batch": 2, "length": 10})


def wrong(*sizes: dict[str, int]) -> list[Outcome]:
    return [Outcome(each, agreed=False) for each in sizes]


def test_the_far_side_is_captured_at_the_sizes_that_were_wrong_and_serves_what_is_left() -> None:
    sides = divided([START], wrong({"batch": 2, "length": 65}), [EVEN, SHORT])
    assert sides == (Side(START.sizes, ("length <= 64",)), Side({"batch": 2, "length": 65}))


def test_axes_that_the_question_is_not_about_stay_as_they_were() -> None:
    sides = divided([START], wrong({"batch": 1, "length": 90}), [SHORT])
    assert sides is not None
    assert sides[1].sizes == {"batch": 2, "length": 90}


def test_a_side_is_parted_within_what_leads_to_it() -> None:
    first = divided([START], wrong({"batch": 2, "length": 65}), [SHORT])
    assert first is not None
    sides = divided(first, wrong({"batch": 2, "length": 11}), [SHORT, EVEN])
    assert sides == (
        Side(START.sizes, ("length <= 64", "length % 2 == 0")),
        Side({"batch": 2, "length": 11}, ("length <= 64",)),
        Side({"batch": 2, "length": 65}),
    )
    for length, captured_at in ((8, 10), (9, 11), (70, 65), (71, 65)):
        serving = next(side for side in sides if side.serves({"batch": 3, "length": length}))
        assert serving.sizes["length"] == captured_at


@pytest.mark.parametrize("size", [0, 1])
def test_of_a_size_that_is_never_a_symbol_no_question_need_be_known(size: int) -> None:
    sides = divided([START], wrong({"batch": 2, "length": size}), [])
    assert sides == (Side(START.sizes, (f"length != {size}",)), Side({"batch": 2, "length": size}))


def test_what_nothing_tells_apart_is_left_alone() -> None:
    assert divided([START], wrong({"batch": 2, "length": 12}), [SHORT, UNWRITTEN]) is None
    assert (
        divided([START], wrong({"batch": 2, "length": 65}, {"batch": 2, "length": 12}), [SHORT, UNWRITTEN]) is not None
    )
    assert divided([START], wrong(), [SHORT]) is None
    none = Side({"batch": 2, "length": 0})
    assert divided([Side(START.sizes, ("length != 0",)), none], wrong({"batch": 2, "length": 0}), []) is None


def test_a_graph_is_joined_of_a_few_sides_only() -> None:
    every = [SizeDecision("", None, True, (), f"length != {size}") for size in range(100, 100 + MOST_SIDES)]
    sides: tuple[Side, ...] = (START,)
    for size in range(100, 100 + MOST_SIDES - 1):
        parted = divided(sides, wrong({"batch": 2, "length": size}), every)
        assert parted is not None
        sides = parted
    assert divided(sides, wrong({"batch": 2, "length": 99 + MOST_SIDES}), every) is None


def test_the_question_is_taken_that_tells_right_sizes_from_wrong_ones() -> None:
    seen = [Outcome({"batch": 2, "length": length}, agreed=length <= 64) for length in (9, 11, 65, 66, 90)]
    sides = divided([START], seen, [EVEN, SHORT])
    assert sides is not None
    assert sides[0].tests == ("length <= 64",)
