"""A bidirectional LSTM that tags tokens."""

from typing import Annotated

from recast_plugins import Axis, Field, InputSpec, Integers, OutputSpec, Signature, architecture
from torch import Tensor, nn


class Tagger(nn.Module):
    def __init__(self, vocabulary: int, hidden: int, tags: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, hidden)
        self.lstm = nn.LSTM(hidden, hidden, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * hidden, tags)

    def forward(self, tokens: Tensor) -> Tensor:
        states, _ = self.lstm(self.embedding(tokens))
        scores: Tensor = self.head(states)
        return scores


def signature(vocabulary: int, tags: int) -> Signature:
    ids = Integers(low=0, high=vocabulary - 1)
    return Signature(
        inputs=(InputSpec(name="tokens", dtype="int64", shape=("batch", "sequence"), distribution=ids),),
        axes=(Axis(name="batch"), Axis(name="sequence", sample=12)),
        outputs=(OutputSpec(name="scores", dtype="float32", shape=("batch", "sequence", tags)),),
    )


@architecture("sample/tagger", family="lstm", signature=signature)
def tagger(
    vocabulary: Annotated[int, Field(ge=2, le=100_000)] = 200,
    hidden: Annotated[int, Field(ge=1, le=1024)] = 32,
    tags: Annotated[int, Field(ge=1, le=1000)] = 9,
) -> nn.Module:
    """Tags tokens with a bidirectional LSTM of two layers."""
    return Tagger(vocabulary, hidden, tags)
