"""The architecture of the quickstart: a small convolutional network for scikit-learn's 8 × 8 digits."""

from typing import Annotated

from recast_plugins import Field, InputSpec, OutputSpec, Signature, Uniform, architecture
from torch import nn

SIGNATURE = Signature(
    inputs=(InputSpec(name="image", shape=("batch", 1, 8, 8), distribution=Uniform(low=0.0, high=1.0)),),
    outputs=(OutputSpec(name="logits"),),
)


@architecture("examples/digits", signature=SIGNATURE, family="digits")
def digits(width: Annotated[int, Field(ge=4, le=256)] = 32) -> nn.Module:
    """Three convolutions with batch norm, then a linear layer; ten classes."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, padding=1, bias=False),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(2 * width, 2 * width, 3, padding=1),
        nn.GELU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(2 * width, 10),
    )
