"""Unfolded windows of half the length are folded back over each other."""

import torch
import torch.nn.functional as F
from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "unfolded windows of half the length are folded back over each other"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 12)
        self.b = nn.Linear(12, 4)

    def forward(self, x):
        h = self.a(x).transpose(1, 2).unsqueeze(2)
        wide = max(x.shape[1] // 2, 1)
        windows = F.unfold(h, (1, wide), stride=(1, 1))
        return self.b(F.fold(windows, (1, x.shape[1]), (1, wide)).squeeze(2).transpose(1, 2))


@architecture(
    "field/n84_folded_back",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=200, sample=20),
        ),
    ),
)
def n84_folded_back() -> nn.Module:
    """Unfolded windows of half the length are folded back over each other."""
    return Net()


JUDGE = {"length": [1, 2, 3, 7, 16, 19, 20, 21, 33, 64, 65, 130]}
