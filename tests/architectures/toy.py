"""A family of architectures as one file, which tests/service/test_another_target.py puts among those of Recast."""

import torch
from torch import Tensor, nn

from app.architectures.entry import Entry, object_schema
from app.domain.architecture import Axis, InputSpec, OutputSpec, Signature

NAME = "toy/odds"


class Odds(nn.Module):
    """Scores in (0, 1) of six features."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.layer(x))


class ToyModels:
    """The one model of this library."""

    prefix = "toy/"

    def names(self) -> tuple[str, ...]:
        return (NAME,)

    def holds(self, name: str) -> bool:
        return name == NAME

    def entry(self, name: str) -> Entry:
        return Entry(
            name=name,
            family="odds",
            library="toy",
            library_version="1",
            summary="Scores",
            options_schema=object_schema({}),
            signature=lambda _: Signature(
                inputs=(InputSpec(name="x", shape=("batch", 6)),),
                axes=(Axis(name="batch", sample=2),),
                outputs=(OutputSpec(name="odds"),),
            ),
            construct=lambda _: Odds(),
        )
