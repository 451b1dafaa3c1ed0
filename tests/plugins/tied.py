"""A language model whose output layer is its embedding."""

from typing import Annotated

from recast_plugins import Axis, Field, InputSpec, Integers, OutputSpec, Signature, architecture
from torch import Tensor, nn


class TiedLanguageModel(nn.Module):
    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.mixer = nn.GRU(width, width, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        states, _ = self.mixer(self.embedding(tokens))
        logits: Tensor = self.head(self.norm(states))
        return logits


def signature(vocabulary: int) -> Signature:
    ids = Integers(low=0, high=vocabulary - 1)
    return Signature(
        inputs=(InputSpec(name="tokens", dtype="int64", shape=("batch", "sequence"), distribution=ids),),
        axes=(Axis(name="batch"), Axis(name="sequence", sample=10)),
        outputs=(OutputSpec(name="logits", dtype="float32", shape=("batch", "sequence", vocabulary)),),
    )


@architecture("sample/tied", family="language_model", signature=signature)
def tied(
    vocabulary: Annotated[int, Field(ge=2, le=100_000)] = 120, width: Annotated[int, Field(ge=1, le=1024)] = 24
) -> nn.Module:
    """A GRU language model with tied embedding and output weights."""
    return TiedLanguageModel(vocabulary, width)
