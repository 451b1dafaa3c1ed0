"""A method that scripting leaves to Python."""

import torch
from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "torch.jit.ignore on a method that looks at a size"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 12)
        self.b = nn.Linear(12, 4)

    @torch.jit.ignore
    def scale(self, h: torch.Tensor) -> torch.Tensor:
        return h * 2.0 if h.shape[1] > 32 else h.sigmoid()

    def forward(self, x):
        if torch.jit.is_scripting():
            return self.b(self.a(x))
        return self.b(self.scale(self.a(x)))


@architecture(
    "field/n53_ignored_by_script",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=200, sample=20),
        ),
    ),
)
def n53_ignored_by_script() -> nn.Module:
    """A method that scripting leaves to Python."""
    return Net()


JUDGE = {"length": [1, 2, 3, 7, 16, 19, 20, 21, 33, 64, 65, 130]}
