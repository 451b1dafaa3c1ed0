"""The few figures of a report by which conversions are held side by side."""

from typing import Self

from app.domain.base import Value
from app.domain.report import ConversionReport


class Figures(Value):
    """None where nothing tells of it."""

    latency: float | None = None
    """Median seconds of the artifact at the sample size, where it was measured."""
    latency_runs: int | None = None
    worst_ratio: float | None = None
    """error / gate of the output nearest to its own; of an approximation, noise / noise that the budget admits."""
    snr_db: float | None = None
    """Least of an approximation's outputs."""
    top1: float | None = None
    """Least of an approximation's outputs."""
    fp32_layers: tuple[str, ...] = ()
    """Layers of an approximation that stay in float32."""

    @classmethod
    def of(cls, report: ConversionReport) -> Self:
        verification, quantization = report.verification, report.export.quantization
        outputs = verification.budget.outputs if verification.budget else ()
        layers = quantization.layers if quantization else ()
        return cls(
            latency=verification.latency and verification.latency.artifact_p50,
            latency_runs=verification.latency and verification.latency.runs,
            worst_ratio=verification.worst_ratio,
            snr_db=min((output.snr_db for output in outputs if output.snr_db is not None), default=None),
            top1=min((output.top1 for output in outputs if output.top1 is not None), default=None),
            fp32_layers=tuple(one.layer for one in layers if one.precision == "fp32"),
        )
