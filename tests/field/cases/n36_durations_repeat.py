"""Each frame is repeated as often as its duration says."""

import torch
from torch import nn

from app.architectures.plugins import Axis, InputSpec, Integers, Signature, architecture

CASE = {"report": "our own", "symptom": "repeat_interleave gives as many rows as the durations sum up to"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 8)
        self.b = nn.Conv1d(8, 4, 3, padding=1)

    def forward(self, x, durations):
        long = torch.repeat_interleave(self.a(x), durations, dim=0)
        return self.b(long.t()[None]).squeeze(0).t()


@architecture(
    "field/n36_durations_repeat",
    family="own",
    signature=Signature(
        inputs=(
            InputSpec(name="x", shape=("frames", 6)),
            InputSpec(name="durations", dtype="int64", shape=("frames",), distribution=Integers(low=1, high=5)),
        ),
        axes=(Axis(name="frames", maximum=100, sample=9),),
    ),
)
def n36_durations_repeat() -> nn.Module:
    """Each frame is repeated as often as its duration says."""
    return Net()


JUDGE = {"frames": [1, 2, 9, 40]}


def extra(draw):
    short, long = draw(frames=4), draw(frames=4)
    short["durations"] = torch.ones(4, dtype=torch.int64)
    long["durations"] = torch.full((4,), 5)
    return [short, long]
