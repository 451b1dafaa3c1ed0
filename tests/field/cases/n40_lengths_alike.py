"""A packed recurrent net, whose output is as long as the longest of the batch."""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from app.architectures.plugins import Axis, InputSpec, Integers, Signature, architecture

CASE = {"report": "our own", "symptom": "pad_packed_sequence without total_length: rows of one length alone differ"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(6, 8, batch_first=True, bidirectional=True)
        self.b = nn.Linear(16, 3)

    def forward(self, x, lengths):
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        return self.b(states).sum(1)


@architecture(
    "field/n40_lengths_alike",
    family="own",
    signature=Signature(
        inputs=(
            InputSpec(name="x", shape=("batch", 12, 6)),
            InputSpec(name="lengths", dtype="int64", shape=("batch",), distribution=Integers(low=1, high=12)),
        ),
        axes=(Axis(name="batch", sample=3),),
    ),
)
def n40_lengths_alike() -> nn.Module:
    """A packed recurrent net, whose output is as long as the longest of the batch."""
    return Net()


JUDGE = {"batch": [1, 2, 3, 7]}


def extra(draw):
    alike = []
    for length in (1, 4, 12):
        inputs = draw(batch=3)
        inputs["lengths"] = torch.full((3,), length)
        alike.append(inputs)
    return alike
