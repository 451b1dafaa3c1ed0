import math
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from recast_plugins import (
    Axis,
    Field,
    InputSpec,
    Integers,
    Mask,
    Normal,
    OutputSpec,
    Signature,
    Uniform,
    architecture,
)

CASE = dict(
    report="onnx/onnx#4855 (2023)",
    symptom="F.dropout without training=self.training stays on in eval: artifact drops or does not, eager is random",
)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(8, 32)
        self.b = nn.Linear(32, 4)

    def forward(self, x):
        return self.b(F.dropout(self.a(x).relu(), 0.2))


@architecture("field/dropout_on", family="mlp", signature=Signature(inputs=(InputSpec(name="x", shape=("batch", 8)),)))
def dropout_on() -> nn.Module:
    """Dropout that never sleeps."""
    return Net()
