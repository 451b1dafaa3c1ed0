"""A pyramid whose levels are enlarged to one another."""

import torch.nn.functional as F
from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "interpolate to the size of another level, odd sizes included"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, padding=1)
        self.b = nn.Linear(6, 4)
        self.down = nn.Conv2d(6, 6, 3, stride=2, padding=1)

    def forward(self, x):
        levels = [self.a(x)]
        while min(levels[-1].shape[-2:]) > 3 and len(levels) < 4:
            levels.append(self.down(levels[-1]))
        out = levels[-1]
        for level in reversed(levels[:-1]):
            out = level + F.interpolate(out, size=level.shape[-2:], mode="bilinear", align_corners=True)
        return self.b(out.permute(0, 2, 3, 1))


@architecture(
    "field/n62_pyramid_by_other_sizes",
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
def n62_pyramid_by_other_sizes() -> nn.Module:
    """A pyramid whose levels are enlarged to one another."""
    return Net()


JUDGE = {"height": [8, 9, 16, 17, 31, 64, 100], "width": [8, 9, 16, 31, 33, 64, 101]}
