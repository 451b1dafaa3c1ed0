"""A mixture of experts that sorts its tokens and splits them by the counts."""

import torch
from torch import nn

from app.architectures.plugins import Axis, InputSpec, Signature, architecture

CASE = {"report": "our own", "symptom": "split by a list of counts that data decide: a trace keeps the sample's"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(8, 3)
        self.first = nn.Parameter(torch.randn(3, 8, 12) * 0.3)
        self.second = nn.Parameter(torch.randn(3, 12, 8) * 0.3)

    def forward(self, x):
        flat = x.reshape(-1, 8)
        weight, chosen = self.router(flat).softmax(-1).max(-1)
        order = chosen.argsort(stable=True)
        counts = torch.bincount(chosen, minlength=3).tolist()
        parts = flat[order].split(counts)
        done = torch.cat([(part @ self.first[i]).relu() @ self.second[i] for i, part in enumerate(parts)])
        result = torch.zeros_like(flat).index_copy(0, order, done)
        return (result * weight[:, None]).view_as(x)


@architecture(
    "field/n47_experts_by_counts",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(Axis(name="batch"), Axis(name="length", maximum=128, sample=12)),
    ),
)
def n47_experts_by_counts() -> nn.Module:
    """A mixture of experts that sorts its tokens and splits them by the counts."""
    return Net()


JUDGE = {"length": [1, 2, 12, 50]}
