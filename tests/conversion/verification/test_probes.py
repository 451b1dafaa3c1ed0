"""Probes: reproducible, at three sizes of every axis, and the client's own."""

from pathlib import Path

import numpy as np
import pytest
import torch

from app.conversion.verification.probes import axis_sizes, draw_certified_probe, draw_probes, read_client_probes
from app.domain.architecture import Axis, InputSpec, Integers, Signature, Uniform
from app.domain.errors import InvalidOptions
from tests.conversion.verification.subjects import FEATURES

TWO_AXES = Signature(
    inputs=(
        InputSpec(name="ids", dtype="int64", shape=("batch", "length"), distribution=Integers(low=0, high=99)),
        InputSpec(name="x", shape=("batch", "length", 3)),
    ),
    axes=(Axis(name="batch", sample=2), Axis(name="length", sample=12, maximum=40)),
)


def test_the_same_seed_draws_the_same_inputs() -> None:
    first, second = draw_probes(TWO_AXES, 5), draw_probes(TWO_AXES, 5)
    assert all(torch.equal(a.inputs[n], b.inputs[n]) for a, b in zip(first, second, strict=True) for n in a.inputs)
    assert not torch.equal(first[0].inputs["x"], draw_probes(TWO_AXES, 6)[0].inputs["x"])


def test_three_draws_take_every_axis_through_three_sizes_and_never_move_two_together() -> None:
    draws = draw_probes(TWO_AXES, 5)[:3]
    assert [(probe.sizes["batch"], probe.sizes["length"]) for probe in draws] == [(1, 12), (2, 13), (3, 1)]


def test_the_large_probe_is_the_first_draw_scaled_with_its_signs_turned() -> None:
    probes = {probe.name: probe for probe in draw_probes(FEATURES, 5)}
    assert torch.equal(probes["large scale"].inputs["x"], -8 * probes["seed 5"].inputs["x"])
    assert probes["small scale"].inputs["x"].abs().max() < 0.1


def test_a_range_is_not_left_on_the_other_side_of_zero() -> None:
    spec = InputSpec(name="x", shape=("batch", 6), distribution=Uniform(low=0, high=1))
    probes = draw_probes(Signature(inputs=(spec,)), 5)
    assert all((probe.inputs["x"] >= 0).all() for probe in probes)


def test_integer_inputs_alone_need_no_scaled_probes() -> None:
    spec = InputSpec(name="ids", dtype="int64", shape=("batch", 4), distribution=Integers(low=0, high=9))
    assert len(draw_probes(Signature(inputs=(spec,)), 5)) == 3


@pytest.mark.parametrize(
    ("axis", "sizes"),
    [
        (Axis(name="a", sample=2), (1, 2, 3)),
        (Axis(name="a", sample=16), (1, 16, 17)),
        (Axis(name="a", sample=224, minimum=64, multiple_of=32), (64, 224, 352)),
        (Axis(name="a", sample=16, maximum=16), (1, 16, 13)),
        (Axis(name="a", sample=2, maximum=2), (1, 2, 2)),
        (Axis(name="a", sample=8, minimum=8, maximum=8), (8, 8, 8)),
    ],
)
def test_axis_sizes_are_admissible_and_differ_where_they_can(axis: Axis, sizes: tuple[int, ...]) -> None:
    assert axis_sizes(axis) == sizes


def test_the_certified_probe_draws_its_size_from_the_seed() -> None:
    sizes = {draw_certified_probe(FEATURES, seed).sizes["batch"] for seed in range(20)}
    assert sizes == {1, 2}


def test_client_probes_are_read_by_name(tmp_path: Path) -> None:
    path = tmp_path / "probes.npz"
    value = np.ones((4, 6), np.float32)
    np.savez(path, **{"day/x": value, "night/x": value * 2})
    probes = read_client_probes(path, FEATURES)
    assert [probe.name for probe in probes] == ["client day", "client night"]
    assert probes[1].sizes == {"batch": 4}
    assert torch.equal(probes[1].inputs["x"], torch.full((4, 6), 2.0))


@pytest.mark.parametrize(
    "arrays",
    [
        {"z": np.ones((1, 6), np.float32)},
        {"x": np.ones((1, 6), np.float64)},
        {"x": np.ones((1, 7), np.float32)},
        {"x": np.ones((6,), np.float32)},
    ],
)
def test_client_probes_that_do_not_fit_are_refused_in_words(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez(tmp_path / "probes.npz", **arrays)
    with pytest.raises(InvalidOptions, match=r"the model takes|not "):
        read_client_probes(tmp_path / "probes.npz", FEATURES)


def test_a_file_that_is_no_npz_is_refused(tmp_path: Path) -> None:
    (tmp_path / "probes.npz").write_bytes(b"junk")
    with pytest.raises(InvalidOptions, match="not a readable npz"):
        read_client_probes(tmp_path / "probes.npz", FEATURES)


@pytest.mark.parametrize("sample", [1_000_000, 2**31, 2**61])
def test_three_sizes_of_an_enormous_axis_are_found_at_once(sample: int) -> None:
    least, exported, other = axis_sizes(Axis(name="n", sample=sample))
    assert (least, exported) == (1, sample)
    assert sample < other < sample + 2_000
