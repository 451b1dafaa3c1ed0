"""A recurrent net over sequences of any length."""

from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "GRU and LSTM, the last state and all outputs"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(8, 6, num_layers=2, batch_first=True, bidirectional=True)
        self.lstm = nn.LSTM(12, 5, batch_first=True)
        self.b = nn.Linear(5, 4)

    def forward(self, x):
        states, last = self.gru(x)
        out, (hidden, _) = self.lstm(states)
        return self.b(out), last.mean(0), hidden[-1]


@architecture(
    "field/n64_recurrent_over_any_length",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=200, sample=20),
        ),
    ),
)
def n64_recurrent_over_any_length() -> nn.Module:
    """A recurrent net over sequences of any length."""
    return Net()


JUDGE = {"length": [1, 2, 3, 7, 16, 19, 20, 21, 33, 64, 65, 130]}
