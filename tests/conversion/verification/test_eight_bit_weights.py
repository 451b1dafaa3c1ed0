"""Weights of 8-bit floats are cast to the architecture's dtype, exactly, and verified like any others."""

from pathlib import Path

import pytest
import torch
from torch import nn

from app.domain.report import Verdict
from app.targets.torchscript.spec import TorchScriptOptions
from tests.conversion.verification.conversions import converted


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_eight_bit_floats_convert(dtype: torch.dtype, tmp_path: Path) -> None:
    weights = nn.Linear(6, 4).to(dtype)
    outcome = converted("        return self.last(x)", TorchScriptOptions(), tmp_path, weights=weights)
    assert outcome.problem is None, outcome.problem
    assert outcome.report.verification.verdict in (Verdict.passed, Verdict.pass_with_notes)
