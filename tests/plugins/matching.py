"""Two inputs, one of them integers with padding, and a dictionary of outputs."""

from typing import Annotated

import torch
from recast_plugins import Axis, Field, InputSpec, Integers, Mask, Signature, architecture
from torch import Tensor, nn


class Matching(nn.Module):
    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.image = nn.Sequential(nn.Conv2d(3, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, tokens: Tensor, mask: Tensor, image: Tensor) -> dict[str, Tensor]:
        weights = mask.to(torch.float32).unsqueeze(-1)
        text = (self.words(tokens) * weights).sum(dim=1) / weights.sum(dim=1)
        picture = self.image(image).mean(dim=(2, 3))
        return {"score": self.scale * (text * picture).sum(dim=-1), "text": text, "picture": picture}


def signature(vocabulary: int) -> Signature:
    ids = Integers(low=0, high=vocabulary - 1)
    return Signature(
        inputs=(
            InputSpec(name="tokens", dtype="int64", shape=("batch", "sequence"), distribution=ids),
            InputSpec(name="mask", dtype="bool", shape=("batch", "sequence"), distribution=Mask()),
            InputSpec(name="image", shape=("batch", 3, 16, 16)),
        ),
        axes=(Axis(name="batch"), Axis(name="sequence", sample=6)),
    )


@architecture("sample/matching", family="two_towers", signature=signature)
def matching(
    vocabulary: Annotated[int, Field(ge=2, le=100_000)] = 100, width: Annotated[int, Field(ge=1, le=1024)] = 16
) -> nn.Module:
    """Scores how well a text fits an image; returns a dictionary."""
    return Matching(vocabulary, width)
