"""One-hot rows of as many classes as the data has."""

import torch.nn.functional as F
from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "one_hot without a number of classes"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 12)
        self.b = nn.Linear(12, 4)

    def forward(self, x):
        chosen = self.a(x).argmax(-1)
        hot = F.one_hot(chosen).to(x.dtype)
        return self.b(F.pad(hot, (0, 12 - hot.shape[-1]))), hot.sum(1)


@architecture(
    "field/n63_as_many_classes",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=200, sample=20),
        ),
    ),
)
def n63_as_many_classes() -> nn.Module:
    """One-hot rows of as many classes as the data has."""
    return Net()


JUDGE = {"length": [1, 2, 3, 7, 16, 19, 20, 21, 33, 64, 65, 130]}
