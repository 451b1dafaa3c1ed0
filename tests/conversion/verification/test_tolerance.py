"""The gate's arithmetic."""

import math

import pytest
import torch

from app.conversion.verification.tolerance import UNBOUNDED, C, K, gate_of, judge, unit_roundoff


def test_the_gate_is_eight_times_the_models_own_error() -> None:
    y64 = torch.tensor([1.0, -2.0], dtype=torch.float64)
    y32 = (y64 + 1e-4).float()
    gate = gate_of(y32, y64)
    assert gate.width == pytest.approx(K * float((y32.double() - y64).abs().max()))
    assert gate.base == pytest.approx(gate.width / K)


def test_the_gate_never_falls_below_what_the_scale_permits() -> None:
    y64 = torch.tensor([310.0], dtype=torch.float64)
    assert gate_of(y64.float(), y64).width == pytest.approx(K * C * 2**-24 * 310)


@pytest.mark.parametrize(
    ("dtype", "u"),
    [(torch.float32, 2**-24), (torch.float16, 2**-11), (torch.bfloat16, 2**-8), (torch.complex64, 2**-24)],
)
def test_the_unit_roundoff_follows_the_dtype(dtype: torch.dtype, u: float) -> None:
    assert unit_roundoff(dtype) == u


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_fails_and_can_be_written_as_json(value: float) -> None:
    y64 = torch.tensor([1.0], dtype=torch.float64)
    judged = judge("y", torch.tensor([value]), gate_of(y64.float(), y64), y64)
    assert not judged.passed
    assert judged.ratio == judged.error == UNBOUNDED
    assert type(judged).model_validate_json(judged.model_dump_json()) == judged


def test_outputs_that_are_all_zero_pass_only_as_zero() -> None:
    zero = torch.zeros(3, dtype=torch.float64)
    assert judge("y", zero.float(), gate_of(zero.float(), zero), zero).passed
    assert not judge("y", zero.float() + 1e-30, gate_of(zero.float(), zero), zero).passed
