"""Prior boxes, kept in nested lists and in a dictionary by size, and moved by each forward."""

import torch
from torch import nn

from app.architectures.plugins import Axis, InputSpec, Signature, architecture

CASE = {"report": "our own", "symptom": "what a forward leaves in lists of lists and in a cache of grids"}


class Priors(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.sides = [[torch.tensor([s, s * 1.5]), torch.tensor([s * 2.0, s])] for s in (4.0, 8.0)]
        self.grids = {}
        self.last = None

    def forward(self, level, features):
        self.sides = [[side.to(features) for side in sides] for sides in self.sides]
        height, width = features.shape[-2:]
        if (height, width) not in self.grids:
            ys, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            self.grids[height, width] = torch.stack([xs, ys], -1).reshape(-1, 2).to(features)
        centres = self.grids[height, width]
        boxes = [torch.cat([centres - side / 2, centres + side / 2], -1) for side in self.sides[level]]
        self.last = torch.cat(boxes)
        return self.last


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.b = nn.Conv2d(6, 6, 3, stride=2, padding=1)
        self.head = nn.Conv2d(6, 8, 1)
        self.priors = Priors()

    def forward(self, x):
        first = self.a(x).relu()
        boxes = []
        for level, features in enumerate((first, self.b(first).relu())):
            shifts = self.head(features).flatten(2).transpose(1, 2).reshape(x.shape[0], -1, 4)
            boxes.append(self.priors(level, features)[None] + shifts)
        return torch.cat(boxes, 1)


@architecture(
    "field/n45_priors_kept_by_size",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", 3, "height", "width")),),
        axes=(
            Axis(name="batch"),
            Axis(name="height", minimum=8, maximum=64, sample=24),
            Axis(name="width", minimum=8, maximum=64, sample=32),
        ),
    ),
)
def n45_priors_kept_by_size() -> nn.Module:
    """Prior boxes, kept in nested lists and in a dictionary by size, and moved by each forward."""
    return Net()


JUDGE = {"height": [8, 9, 24, 50], "width": [8, 11, 32]}
