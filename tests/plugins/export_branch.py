"""A module that computes something else while it is exported: its artifact must never pass."""

import torch
from recast_plugins import InputSpec, OutputSpec, Signature, architecture
from torch import Tensor, nn


class ExportBranch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 4)

    def forward(self, features: Tensor) -> Tensor:
        scores: Tensor = self.linear(features)
        if torch.onnx.is_in_onnx_export() or torch.compiler.is_exporting() or torch.jit.is_tracing():
            return torch.relu(scores)
        return scores


@architecture(
    "sample/export_branch",
    family="export_branch",
    signature=Signature(
        inputs=(InputSpec(name="features", shape=("batch", 8)),),
        outputs=(OutputSpec(name="scores", dtype="float32", shape=("batch", 4)),),
    ),
)
def export_branch() -> nn.Module:
    """Adds a ReLU in exported graphs only."""
    return ExportBranch()
