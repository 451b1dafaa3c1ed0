"""Boxes are pooled from the level of a pyramid that fits their area."""

import torch
from torch import nn
from torchvision.ops import MultiScaleRoIAlign

from app.architectures.plugins import Axis, InputSpec, Signature, Uniform, architecture

CASE = {"report": "our own", "symptom": "torchvision's multi-scale pooling sends boxes to levels by their values"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, padding=1)
        self.b = nn.Conv2d(6, 6, 3, stride=2, padding=1)
        self.pool = MultiScaleRoIAlign(["fine", "coarse"], 3, 2, canonical_scale=32, canonical_level=2)
        self.head = nn.Linear(54, 4)

    def forward(self, image, corners, sides):
        fine = self.a(image).relu()
        boxes = torch.cat([corners, corners + sides], -1)
        pooled = self.pool({"fine": fine, "coarse": self.b(fine)}, [boxes], [(32, 32)])
        return self.head(pooled.flatten(1))


@architecture(
    "field/n48_levels_by_area",
    family="own",
    signature=Signature(
        inputs=(
            InputSpec(name="image", shape=(1, 3, 32, 32)),
            InputSpec(name="corners", shape=("boxes", 2), distribution=Uniform(low=0.0, high=10.0)),
            InputSpec(name="sides", shape=("boxes", 2), distribution=Uniform(low=1.0, high=22.0)),
        ),
        axes=(Axis(name="boxes", maximum=60, sample=8),),
    ),
)
def n48_levels_by_area() -> nn.Module:
    """Boxes are pooled from the level of a pyramid that fits their area."""
    return Net()


JUDGE = {"boxes": [1, 2, 8, 40]}


def extra(draw):
    """All boxes of one level."""
    small, large = draw(boxes=5), draw(boxes=5)
    small["sides"] = small["sides"] * 0.05 + 1
    large["sides"] = large["sides"] * 0.05 + 20
    return [small, large]
