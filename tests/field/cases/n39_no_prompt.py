"""Points that prompt a segmenter, with a learned one where there are none."""

import torch
from torch import nn

from app.architectures.plugins import Axis, InputSpec, Signature, Uniform, architecture

CASE = {"report": "our own", "symptom": "an axis that may be 0 is replaced by a learned token"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(2, 8))
        self.none = nn.Parameter(torch.randn(1, 1, 16))
        self.image = nn.Linear(6, 16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, features, points):
        angles = points @ self.frequencies
        prompts = torch.cat([angles.sin(), angles.cos()], -1)
        if points.size(1) == 0:
            prompts = self.none.expand(points.size(0), -1, -1)
        attended, _ = self.attention(self.image(features), prompts, prompts, need_weights=False)
        return attended


@architecture(
    "field/n39_no_prompt",
    family="own",
    signature=Signature(
        inputs=(
            InputSpec(name="features", shape=("batch", 10, 6)),
            InputSpec(name="points", shape=("batch", "points", 2), distribution=Uniform()),
        ),
        axes=(Axis(name="batch"), Axis(name="points", minimum=0, maximum=30, sample=3)),
    ),
)
def n39_no_prompt() -> nn.Module:
    """Points that prompt a segmenter, with a learned one where there are none."""
    return Net()


JUDGE = {"points": [0, 1, 3, 20]}
