"""The nearest declared sizes on the other side of a condition."""

import pytest
import sympy
from torch.utils._sympy.functions import FloorDiv, IntTrueDiv, PythonMod

from app.conversion.decisions.nearest_sizes import Sizes, far_sides, written
from app.domain.architecture import Axis, InputSpec, Signature
from app.targets.capturing.side import is_test

n, h, w = (sympy.Symbol(name, integer=True) for name in ("n", "h", "w"))


def _signature(*axes: Axis) -> Signature:
    return Signature(inputs=(InputSpec(name="x", shape=tuple(axis.name for axis in axes)),), axes=axes)


ONE = _signature(Axis(name="n", sample=16, maximum=512))
TWO = _signature(Axis(name="h", sample=16, minimum=8, maximum=256), Axis(name="w", sample=16, minimum=8, maximum=256))


@pytest.mark.parametrize(
    ("condition", "signature", "start", "nearest"),
    [
        (n <= 64, ONE, {"n": 16}, [65, 64, 66]),
        (n >= 8, ONE, {"n": 16}, [7, 8, 6]),
        (n <= 511, ONE, {"n": 16}, [512, 511]),
        (n <= 5000, _signature(Axis(name="n", sample=16)), {"n": 16}, [5001, 5000, 5002]),
        (n <= 64, _signature(Axis(name="n", sample=16, multiple_of=16)), {"n": 16}, [80, 64, 96]),
    ],
)
def test_the_nearest_size_beyond_comes_first_with_its_neighbours(
    condition: sympy.Basic, signature: Signature, start: Sizes, nearest: list[int]
) -> None:
    assert [sizes["n"] for sizes in far_sides(condition, signature, start)] == nearest


def test_a_condition_that_holds_for_all_declared_sizes_has_no_other_side() -> None:
    assert far_sides(n <= 512, ONE, {"n": 16}) == []


def test_both_sides_of_a_remainder_are_found() -> None:
    found = {sizes["n"] for sizes in far_sides(sympy.Ne(sympy.Mod(n, 7), 0), ONE, {"n": 16})}
    assert {14, 21} <= found


def test_several_axes_are_changed_at_once_where_one_alone_does_not_reach_the_other_side() -> None:
    first, *_ = far_sides(h * w <= 8000, TWO, {"h": 16, "w": 16})
    assert first["h"] * first["w"] > 8000
    assert (first["h"] - 1) * first["w"] <= 8000


def test_an_axis_that_declares_no_greatest_size_is_looked_at_up_to_a_bound() -> None:
    assert far_sides(n <= 10**9, _signature(Axis(name="n", sample=16)), {"n": 16}) == []


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        (sympy.Ne(n, 137), "n != 137"),
        (sympy.And(h > w, sympy.Ne(h - w, 3)), "h > w and (h - w) != 3"),
        (sympy.Or(sympy.Eq(PythonMod(n, 7), 0), n >= 2 * h), "(n % 7) == 0 or n >= 2*h"),
        (sympy.Not(sympy.Abs(h - w) < 20), "abs(h - w) >= 20"),
        (IntTrueDiv(h, w) <= sympy.Float(1.5), "(h / w) <= 1.5"),
        (sympy.Eq(FloorDiv(h, 2) - 2 * FloorDiv(h, 4), 0), "((h // 2) - 2*(h // 4)) == 0"),
    ],
)
def test_a_condition_is_told_as_a_model_would_ask_it(condition: sympy.Basic, words: str) -> None:
    assert written(condition) == words
    assert is_test(words, {"n", "h", "w"})
