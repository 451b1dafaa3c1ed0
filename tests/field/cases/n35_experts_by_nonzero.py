"""A mixture of experts, each given the tokens that chose it."""

import torch
from torch import nn

from app.architectures.plugins import Axis, InputSpec, Signature, architecture

CASE = {"report": "our own", "symptom": "an expert that no token of the sample chose is left out by a trace"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(8, 4)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8)) for _ in range(4))

    def forward(self, x):
        flat = x.reshape(-1, 8)
        weights, chosen = self.router(flat).softmax(-1).topk(2, dim=-1)
        result = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            token, place = torch.where(chosen == number)
            result.index_add_(0, token, expert(flat[token]) * weights[token, place, None])
        return result.view_as(x)


@architecture(
    "field/n35_experts_by_nonzero",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(Axis(name="batch"), Axis(name="length", maximum=128, sample=12)),
    ),
)
def n35_experts_by_nonzero() -> nn.Module:
    """A mixture of experts, each given the tokens that chose it."""
    return Net()


JUDGE = {"length": [1, 2, 12, 50]}


def extra(draw):
    """All tokens alike: two experts get all of them, two none."""
    x = draw(batch=2, length=6)["x"]
    return [{"x": x[:1, :1].expand(2, 6, 8).clone()}, {"x": x[:1, :1].clone()}]
