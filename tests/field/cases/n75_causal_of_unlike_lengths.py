"""Is_causal where queries and keys differ in number, and grouped heads."""

import torch
import torch.nn.functional as F
from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "is_causal where queries and keys differ in number, and grouped heads"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = nn.Linear(32, 32), nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(32, 4)

    def forward(self, q, k):
        q_, k_, v_ = (t.unflatten(-1, (-1, 8)).transpose(1, 2) for t in (self.q(q), self.k(k), self.v(k)))
        out = F.scaled_dot_product_attention(q_, k_, v_, is_causal=True, enable_gqa=True, scale=0.2)
        return self.o(out.transpose(1, 2).flatten(2))


@architecture(
    "field/n75_causal_of_unlike_lengths",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="q", shape=("batch", "queries", 32)), InputSpec(name="k", shape=("batch", "keys", 16))),
        axes=(
            Axis(name="batch"),
            Axis(name="queries", maximum=60, sample=6),
            Axis(name="keys", maximum=60, sample=9),
        ),
    ),
)
def n75_causal_of_unlike_lengths() -> nn.Module:
    """Is_causal where queries and keys differ in number, and grouped heads."""
    return Net()


JUDGE = {"queries": [1, 2, 6, 9, 20], "keys": [1, 3, 9, 30]}
