"""An architecture that is nearly all weights: what transfer.py moves about."""

from typing import Annotated

from recast_plugins import Field, InputSpec, Integers, Signature, architecture
from torch import nn

WIDTH = 250


def signature(rows: int) -> Signature:
    ids = InputSpec(name="input", dtype="int64", shape=("batch",), distribution=Integers(low=0, high=rows - 1))
    return Signature(inputs=(ids,))


@architecture("bench/table", signature=signature)
def table(rows: Annotated[int, Field(ge=1, le=10_000_000)] = 1000) -> nn.Module:
    """One embedding of ``rows`` × 250 float32 values."""
    return nn.Embedding(rows, WIDTH)
