"""Adaptive pooling to sizes of all kinds."""

import torch.nn.functional as F
from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "adaptive pooling to (5, 3), (None, 7) and 1"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, padding=1)
        self.b = nn.Linear(6, 4)

    def forward(self, x):
        h = self.a(x)
        a, b = F.adaptive_max_pool2d(h, (5, 3)), F.adaptive_avg_pool2d(h, (None, 7))
        return self.b(a.flatten(2).sum(2)), b


@architecture(
    "field/n54_pooled_to_odd_sizes",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", 3, "height", "width")),),
        axes=(
            Axis(name="batch"),
            Axis(name="height", minimum=8, maximum=128, sample=24),
            Axis(name="width", minimum=8, maximum=128, sample=32),
        ),
    ),
)
def n54_pooled_to_odd_sizes() -> nn.Module:
    """Adaptive pooling to sizes of all kinds."""
    return Net()


JUDGE = {"height": [8, 9, 16, 17, 31, 64, 100], "width": [8, 9, 16, 31, 33, 64, 101]}
