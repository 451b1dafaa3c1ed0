"""Grid_sample, bicubic and reflected, on a grid of the size."""

import torch
import torch.nn.functional as F
from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "grid_sample, bicubic and reflected, on a grid of the size"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.theta = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(3, 6)

    def forward(self, x):
        theta = self.theta(x.mean((2, 3))).view(-1, 2, 3)
        grid = F.affine_grid(theta, [x.shape[0], 4, x.shape[2] // 2, x.shape[3] // 2 + 1], align_corners=False)
        return F.grid_sample(self.a(x), grid, mode="bicubic", padding_mode="reflection", align_corners=False)


@architecture(
    "field/n81_grid_of_the_image",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", 3, "height", "width")),),
        axes=(
            Axis(name="batch"),
            Axis(name="height", minimum=8, maximum=96, sample=24),
            Axis(name="width", minimum=8, maximum=96, sample=20),
        ),
    ),
)
def n81_grid_of_the_image() -> nn.Module:
    """Grid_sample, bicubic and reflected, on a grid of the size."""
    return Net()


JUDGE = {"height": [8, 9, 16, 24, 31, 64, 90], "width": [8, 11, 20, 33, 64]}
