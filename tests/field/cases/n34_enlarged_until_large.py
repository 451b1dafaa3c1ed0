"""Small images are doubled until they are large enough."""

import torch.nn.functional as F
from torch import nn

from app.architectures.plugins import Axis, InputSpec, Signature, architecture

CASE = {"report": "our own", "symptom": "a while loop over height and width, as often as the sample needs it"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, padding=1)
        self.b = nn.Linear(6, 5)

    def forward(self, x):
        while min(x.shape[-2:]) < 32:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return self.b(self.a(x).relu().mean((2, 3)))


@architecture(
    "field/n34_enlarged_until_large",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", 3, "height", "width")),),
        axes=(
            Axis(name="batch"),
            Axis(name="height", minimum=5, maximum=96, sample=40),
            Axis(name="width", minimum=5, maximum=96, sample=48),
        ),
    ),
)
def n34_enlarged_until_large() -> nn.Module:
    """Small images are doubled until they are large enough."""
    return Net()


JUDGE = {"height": [5, 15, 16, 31, 32, 40, 90], "width": [7, 16, 31, 32, 48]}
