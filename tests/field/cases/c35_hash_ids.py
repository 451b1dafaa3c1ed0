import math
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from recast_plugins import (
    Axis,
    Field,
    InputSpec,
    Integers,
    Mask,
    Normal,
    OutputSpec,
    Signature,
    Uniform,
    architecture,
)

CASE = dict(
    report="int64 arithmetic in embeddings (torchrec/hash tricks); pytorch onnx integer issues",
    symptom="hashing of 64-bit ids overflows or goes through float and gives other buckets",
)


class Hash(nn.Module):
    def __init__(self):
        super().__init__()
        self.e = nn.EmbeddingBag(97, 8, mode="mean")
        self.register_buffer("salt", torch.tensor([2654435761, 6364136223846793005 >> 3]), persistent=False)

    def forward(self, ids):
        h = (ids.unsqueeze(-1) * self.salt) % 97
        h = torch.bitwise_xor(h, (ids.unsqueeze(-1) & 31)) % 97
        return self.e(h.flatten(1))


@architecture(
    "field/hash",
    family="recsys",
    signature=Signature(
        inputs=(InputSpec(name="ids", dtype="int64", shape=("batch", 6), distribution=Integers(low=0, high=2**62)),)
    ),
)
def hash_() -> nn.Module:
    """Hashed bags."""
    return Hash()
