"""Evidence outside the declared distribution costs about what other evidence does, and what would not is named."""

import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from app.conversion.verification.forward_cost import LEAST_SECONDS, CostByScale
from app.conversion.verification.verify import verify
from app.domain.report import Verdict
from app.processes import memory_ceiling
from tests.conversion.verification.subjects import FEATURES, torchscript_subject


class Plain(nn.Module):
    """What both models below compute, at no cost."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.last = nn.Linear(6, 4)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x)


class Sampling(Plain):
    """As roi_align: samples a grid as fine as its input is large. ``seen`` are the grids that it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        side = (x.abs().amax() * 40).ceil().long().clamp(min=1)
        grid = torch.linspace(0, 1, int(side))
        if not torch.jit.is_tracing():
            self.seen.append(int(side))
        return self.last(x) + 0 * (grid[:, None] * grid).sin().mean()


class Predicting(Plain):
    """As a speech model: the length of a step is the exponential of what a layer says."""

    def forward(self, x: Tensor) -> Tensor:
        count = int((x.abs().amax() * 0.12).exp().clamp(max=1e12))
        return self.last(x) + 0 * torch.ones(count, 64).sin().mean()


@pytest.mark.parametrize("model", [Sampling, Predicting])
def test_scales_at_which_a_forward_costs_far_more_are_left_out_and_named(model: type[Plain], tmp_path: Path) -> None:
    module, plain = model(), Plain()
    plain.load_state_dict(module.state_dict())
    subject = torchscript_subject(module, FEATURES, tmp_path, of=plain)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = verify(subject)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert report.verdict in (Verdict.passed, Verdict.pass_with_notes), report.findings
    assert grown < 2 << 30
    if isinstance(module, Sampling):
        assert max(module.seen) < 64 * 40 * 8
        assert "scale" in report.not_run["extremes"]


class Dear(Plain):
    """Takes processor time by the square of its input's size, as ``spend`` is told."""

    def __init__(self, spend: Callable[[float], None]) -> None:
        super().__init__()
        self.spend = spend

    def forward(self, x: Tensor) -> Tensor:
        if not torch.jit.is_tracing():
            self.spend(float(x.abs().amax()))
        return self.last(x)


def test_where_the_largest_probe_was_left_out_larger_scales_are_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the small one cost says nothing of them."""
    sizes = [0.0]
    module, plain = Dear(sizes.append), Plain()
    plain.load_state_dict(module.state_dict())
    subject = torchscript_subject(module, FEATURES, tmp_path, of=plain)
    monkeypatch.setattr(time, "process_time", lambda: 0.05 * sum(size**2 for size in sizes))
    report = verify(subject)
    left_out = {probe.probe for probe in report.probes if (probe.reason or "").startswith("skipped")}
    assert left_out == {"large scale"}
    assert max(sizes) < 64
    assert "scale" in report.not_run["extremes"]


def test_a_cost_by_scale_looks_ahead_by_the_growth_that_was_seen() -> None:
    steady, growing = CostByScale(0.01), CostByScale(0.001)
    for scale in (8, 64):
        steady.measured(scale, 0.015)
    assert steady.refuses(4096) is None
    growing.measured(8, 0.064)  # by the square of the scale
    assert growing.refuses(16) is None
    assert growing.refuses(64) is not None
    assert growing.refuses(4096) is not None


def test_what_is_short_in_any_case_is_never_refused() -> None:
    short = CostByScale(1e-5)
    short.measured(8, 5e-5)
    assert short.refuses(4096) is None
    assert short.seconds < LEAST_SECONDS


def test_under_a_ceiling_memory_runs_out_and_comes_back() -> None:
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    with memory_ceiling(1 << 29):
        assert torch.ones(1 << 20).sum() == 1 << 20
        with pytest.raises(RuntimeError, match="memory"):
            torch.ones(1 << 40)
    assert resource.getrlimit(resource.RLIMIT_DATA) == limits
