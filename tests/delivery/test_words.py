"""Figures and names as a reader sees them."""

import math

import pytest

from app.delivery import charts, words


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0"),
        (0.234, "0.234"),
        (3690.0, "3\u202f690"),
        (2.1e-7, "2.1×10⁻⁷"),
        (8.4e9, "8.4×10⁹"),
        (math.inf, "∞"),
        (-math.inf, "-∞"),
        (math.nan, "not a number"),
    ],
)
def test_numbers(value, said):
    assert words.scientific(value) == said


def test_sizes_and_durations():
    assert [words.size(n) for n in (0, 999, 1000, 46_838_211, 3 * 10**12)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "46.8 MB",
        "3.0 TB",
    ]
    assert [words.seconds(s) for s in (2.5e-5, 0.0312, 4.3, 250.0)] == ["25 µs", "31.2 ms", "4.30 s", "250 s"]


def test_names_show_what_cannot_be_seen():
    assert words.name("a\u202eb\x00\n\ud800") == "a\\u202eb\\u0000\\u000a\\ud800"
    assert words.name("k" * 500).endswith("… (500 characters)")


def test_the_gate_is_in_one_place_and_order_is_kept():
    ratios = [0, 1e-9, 1e-3, 0.5, 1, 2, 1e9, math.inf]
    positions = [charts.gate_position(ratio) for ratio in ratios]
    assert positions == sorted(positions)
    assert charts.gate_position(math.nan) == 100
    gates = [tick for tick in charts.gate_ticks() if tick.is_gate]
    assert [tick.offset for tick in gates] == [charts.gate_position(1)]


def test_parts_of_a_whole_fill_it_without_gaps():
    segments = charts.stacked({"a": 1, "none": 0, "b": 3})
    assert [(s.label, s.offset, s.width) for s in segments] == [("a", 0, 25), ("b", 25, 75)]
    assert charts.stacked({}) == ()
