"""Mean over the kept tokens; a row of padding alone takes the first token."""

import torch
import torch.nn.functional as F
from app.architectures.plugins import Axis, InputSpec, Mask, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "mean over the kept tokens; a row of padding alone takes the first token"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 12)
        self.b = nn.Linear(12, 4)

    def forward(self, x, mask):
        h = self.a(x)
        kept = mask.sum(1)
        mean = (h * mask[..., None]).sum(1) / kept.clamp(min=1)[:, None]
        if bool((kept == 0).any()):
            mean = torch.where((kept == 0)[:, None], h[:, 0], mean)
        return self.b(mean)


@architecture(
    "field/n97_padding_only",
    family="own",
    signature=Signature(
        inputs=(
            InputSpec(name="x", shape=("batch", "length", 8)),
            InputSpec(name="mask", dtype="int64", shape=("batch", "length"), distribution=Mask()),
        ),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=200, sample=20),
        ),
    ),
)
def n97_padding_only() -> nn.Module:
    """Mean over the kept tokens; a row of padding alone takes the first token."""
    return Net()


JUDGE = {"length": [1, 2, 3, 7, 16, 19, 20, 21, 33, 64, 65, 130]}


def extra(draw):
    values = draw()
    empty = values["mask"].clone()
    empty[0] = 0
    return [
        {**values, "mask": empty},
        {**values, "mask": torch.ones_like(empty)},
        {**values, "mask": torch.zeros_like(empty)},
    ]
