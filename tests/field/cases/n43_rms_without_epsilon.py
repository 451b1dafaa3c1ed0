"""Functional normalisations that take their epsilon from the dtype."""

import torch
import torch.nn.functional as F
from torch import nn

from app.architectures.plugins import Axis, InputSpec, Signature, architecture

CASE = {"report": "our own", "symptom": "F.rms_norm without eps, over two axes, beside norms with eps of their own"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(4, 6) + 0.5)
        self.a = nn.Linear(6, 6)
        self.group = nn.GroupNorm(2, 4, eps=1e-3)

    def forward(self, x):
        y = F.rms_norm(self.a(x), (4, 6), self.scale)
        z = self.group(F.normalize(y, dim=1, eps=1e-4))
        return F.layer_norm(z, (6,), eps=1e-6), F.rms_norm(y.mean(1), (6,))


@architecture(
    "field/n43_rms_without_epsilon",
    family="own",
    signature=Signature(inputs=(InputSpec(name="x", shape=("batch", 4, 6)),), axes=(Axis(name="batch"),)),
)
def n43_rms_without_epsilon() -> nn.Module:
    """Functional normalisations that take their epsilon from the dtype."""
    return Net()


def extra(draw):
    small = draw(batch=2)
    return [{"x": small["x"] * 1e-4}]
