"""Drawn inputs follow the declared distributions."""

import pytest
import torch

from app.architectures.sample import sample_inputs
from app.domain.architecture import Axis, Distribution, InputSpec, Integers, Mask, Normal, Signature, Uniform


def one(distribution: Distribution, shape: tuple[int | str, ...], dtype: str = "float32") -> Signature:
    spec = InputSpec(name="x", shape=shape, dtype=dtype, distribution=distribution)
    return Signature(inputs=(spec,), axes=(Axis(name="batch", sample=3), Axis(name="sequence", sample=5)))


def test_symbolic_axes_take_the_given_size_or_their_sample_size(generator: torch.Generator) -> None:
    drawn = sample_inputs(one(Normal(), ("batch", "sequence", 4)), {"sequence": 7}, generator)
    assert drawn["x"].shape == (3, 7, 4)


def test_normal_and_uniform_draws_have_their_moments_and_scale(generator: torch.Generator) -> None:
    normal = sample_inputs(one(Normal(mean=2.0, std=0.5), (10_000,)), {}, generator)["x"]
    assert abs(normal.mean().item() - 2.0) < 0.05
    assert abs(normal.std().item() - 0.5) < 0.05
    uniform = sample_inputs(one(Uniform(low=-1.0, high=3.0), (10_000,)), {}, generator, scale=10.0)["x"]
    assert uniform.min() >= -10
    assert uniform.max() < 30
    assert uniform.max() > 25


@pytest.mark.parametrize("size", [2, 3, 1000])
def test_integers_hold_both_ends_of_their_range(generator: torch.Generator, size: int) -> None:
    drawn = sample_inputs(one(Integers(low=0, high=30_521), (size,), "int64"), {}, generator)["x"]
    assert drawn.dtype == torch.int64
    assert drawn.min() == 0
    assert drawn.max() == 30_521


@pytest.mark.parametrize("dtype", ["int64", "bool", "float32"])
def test_masks_are_ones_followed_by_padding(generator: torch.Generator, dtype: str) -> None:
    drawn = sample_inputs(one(Mask(), ("batch", "sequence"), dtype), {}, generator)["x"].to(torch.int64)
    assert (drawn.diff(dim=-1) <= 0).all()
    assert (drawn.sum(dim=-1) >= 1).all()
    assert drawn.sum(dim=-1).max() == 5
    assert drawn.sum(dim=-1).min() < 5


def test_the_same_seed_draws_the_same() -> None:
    signature = one(Normal(), ("batch", 4))
    first, second = (sample_inputs(signature, {}, torch.Generator().manual_seed(1))["x"] for _ in range(2))
    assert torch.equal(first, second)
