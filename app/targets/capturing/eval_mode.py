"""Inference mode, asserted before and after every export."""

from torch import nn

from app.domain.errors import ExportFailed


def assert_eval(module: nn.Module) -> None:
    """Raise ExportFailed if any part of ``module`` is in training mode."""
    training = [
        name or type(part).__name__ for name, part in module.named_modules() if getattr(part, "training", False)
    ]
    if training:
        raise ExportFailed(
            f"Modules are in training mode: {', '.join(training[:5])}.",
            stage="export",
            hint="The architecture's constructor or forward switches train() on; an artifact is for inference.",
        )
