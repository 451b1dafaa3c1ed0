"""Small architectures whose Python decides on sizes or values, each of a kind that a trace freezes.

``JUDGE`` has the sizes to judge each at, by name; ``extra`` inputs go with a file, so value-steered ones are elsewhere.
"""

import math

import torch
import torch.nn.functional as F
from recast_plugins import Axis, InputSpec, Signature, architecture
from torch import Tensor, nn

BATCH = Axis(name="batch")
ROWS = Signature(
    inputs=(InputSpec(name="x", shape=("batch", "n", 6)),), axes=(BATCH, Axis(name="n", sample=10, maximum=300))
)
OPEN = Signature(inputs=(InputSpec(name="x", shape=("batch", "n", 6)),), axes=(BATCH, Axis(name="n", sample=10)))
IMAGE = Signature(
    inputs=(InputSpec(name="x", shape=("batch", 2, "height", "width")),),
    axes=(
        BATCH,
        Axis(name="height", sample=12, minimum=4, maximum=96),
        Axis(name="width", sample=14, minimum=4, maximum=96),
    ),
)
PAIR = Signature(
    inputs=(InputSpec(name="q", shape=("batch", "queries", 6)), InputSpec(name="k", shape=("batch", "keys", 6))),
    axes=(BATCH, Axis(name="queries", sample=4, maximum=60), Axis(name="keys", sample=9, maximum=60)),
)
SIZES = [1, 2, 6, 7, 10, 13, 14, 32, 33, 40, 100]
JUDGE = {
    "own/multiple_of_seven": {"n": [1, 6, 7, 10, 14, 21, 100]},
    "own/number_of_a_size": {"n": SIZES},
    "own/length_in_a_loop": {"n": SIZES},
    "own/chunks": {"n": SIZES},
    "own/best_of_a_third": {"n": [3, 6, 7, 10, 33, 100]},
    "own/two_rows": {"batch": [1, 2, 3, 8]},
    "own/seven_rows": {"batch": [1, 2, 6, 7, 8]},
    "own/size_as_value": {"n": SIZES},
    "own/large_area": {"height": [4, 12, 40, 96], "width": [4, 14, 40, 96]},
    "own/more_queries": {"queries": [1, 4, 9, 10, 40], "keys": [1, 9, 20]},
    "own/same_length": {"queries": [1, 4, 9, 10, 40], "keys": [1, 4, 9, 20]},
    "own/pooling_kernel": {"height": [8, 12, 13, 40], "width": [8, 14, 15, 40]},
    "own/nested_lengths": {"n": [1, 10, 20, 21, 50, 51, 200]},
    "own/far_away": {"n": [1, 10, 900, 1001]},
    "own/between": {"n": [1, 10, 19, 20, 29, 30, 31]},
    "own/even_odd_halves": {"n": [2, 3, 10, 11, 12, 13]},
    "own/wide_or_tall": {"height": [4, 12, 40], "width": [4, 12, 14, 40]},
    "own/table_end": {"n": [1, 10, 32, 33, 60]},
    "own/padded_to_eight": {"n": [1, 7, 8, 9, 10, 16, 17]},
    "own/long_mean": {"n": [1, 10, 128, 129, 200]},
    "own/window_of_the_last": {"n": [1, 5, 10, 16, 17, 80]},
}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.last = nn.Linear(8, 4)


class MultipleOfSeven(Net):
    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        if x.shape[1] % 7 == 0:
            h = h.tanh()
        return self.last(h)


@architecture("own/multiple_of_seven", signature=ROWS)
def multiple_of_seven() -> nn.Module:
    return MultipleOfSeven()


class NumberOfASize(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x) / math.sqrt(x.shape[1]))


@architecture("own/number_of_a_size", signature=ROWS)
def number_of_a_size() -> nn.Module:
    return NumberOfASize()


class LengthInALoop(Net):
    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        total = torch.zeros_like(h[:, 0])
        for position in range(x.shape[1]):
            total = total * 0.5 + h[:, position]
        return self.last(total)


@architecture("own/length_in_a_loop", signature=ROWS)
def length_in_a_loop() -> nn.Module:
    return LengthInALoop()


class Chunks(Net):
    def forward(self, x: Tensor) -> Tensor:
        parts = x.chunk(3, 1)
        return self.last(self.first(torch.cat([part - part.mean(1, keepdim=True) for part in parts], 1)))


@architecture("own/chunks", signature=ROWS)
def chunks() -> nn.Module:
    return Chunks()


class BestOfAThird(Net):
    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        return self.last(h.topk(max(1, x.shape[1] // 3), dim=1).values)


@architecture(
    "own/best_of_a_third",
    signature=Signature(inputs=ROWS.inputs, axes=(BATCH, Axis(name="n", minimum=3, sample=10, maximum=300))),
)
def best_of_a_third() -> nn.Module:
    return BestOfAThird()


class TwoRows(Net):
    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        return self.last(h if x.shape[0] == 2 else h.relu())


@architecture("own/two_rows", signature=Signature(inputs=(InputSpec(name="x", shape=("batch", 6)),)))
def two_rows() -> nn.Module:
    return TwoRows()


class SevenRows(Net):
    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        return self.last(h.sigmoid() if x.shape[0] == 7 else h.relu())


@architecture("own/seven_rows", signature=Signature(inputs=(InputSpec(name="x", shape=("batch", 6)),)))
def seven_rows() -> nn.Module:
    return SevenRows()


class SizeAsValue(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x) * (float(x.shape[1]) / 10.0))


@architecture("own/size_as_value", signature=ROWS)
def size_as_value() -> nn.Module:
    return SizeAsValue()


class LargeArea(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        if x.shape[2] * x.shape[3] >= 1500:
            h = F.avg_pool2d(h, 2)
        return h.relu().mean((2, 3))


@architecture("own/large_area", signature=IMAGE)
def large_area() -> nn.Module:
    return LargeArea()


class MoreQueries(Net):
    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        a, b = self.first(q), self.first(k)
        scores = a @ b.transpose(1, 2)
        if q.shape[1] > k.shape[1]:
            scores = scores * 0.5
        return self.last(scores.softmax(-1) @ b)


@architecture("own/more_queries", signature=PAIR)
def more_queries() -> nn.Module:
    return MoreQueries()


class SameLength(Net):
    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        a, b = self.first(q), self.first(k)
        if q.shape[1] == k.shape[1]:
            return self.last(a + b)
        return self.last(a + b.mean(1, keepdim=True))


@architecture("own/same_length", signature=PAIR)
def same_length() -> nn.Module:
    return SameLength()


class PoolingKernel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        return F.avg_pool2d(h, (h.shape[2] // 2, h.shape[3] // 2)).flatten(1)[:, :16]


@architecture(
    "own/pooling_kernel",
    signature=Signature(
        inputs=IMAGE.inputs,
        axes=(
            BATCH,
            Axis(name="height", sample=12, minimum=8, maximum=96),
            Axis(name="width", sample=14, minimum=8, maximum=96),
        ),
    ),
)
def pooling_kernel() -> nn.Module:
    return PoolingKernel()


class NestedLengths(Net):
    """The second branch shows only beyond the first."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        if x.shape[1] > 20:
            h = h.relu()
            if x.shape[1] > 50:
                h = h * 2
        return self.last(h)


@architecture("own/nested_lengths", signature=ROWS)
def nested_lengths() -> nn.Module:
    return NestedLengths()


class FarAway(Net):
    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        return self.last(h if x.shape[1] <= 1000 else h.tanh())


@architecture("own/far_away", signature=OPEN)
def far_away() -> nn.Module:
    return FarAway()


class Between(Net):
    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        return self.last(h.tanh() if 20 <= x.shape[1] < 30 else h)


@architecture("own/between", signature=ROWS)
def between() -> nn.Module:
    return Between()


class EvenOddHalves(Net):
    def forward(self, x: Tensor) -> Tensor:
        half = x.shape[1] // 2
        h = self.first(x)
        return self.last(h[:, :half] + h[:, x.shape[1] - half :])


@architecture(
    "own/even_odd_halves",
    signature=Signature(inputs=ROWS.inputs, axes=(BATCH, Axis(name="n", minimum=2, sample=10, maximum=300))),
)
def even_odd_halves() -> nn.Module:
    return EvenOddHalves()


class WideOrTall(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x).relu()
        side = min(x.shape[2], x.shape[3])
        return h[:, :, :side, :side].mean((2, 3))


@architecture("own/wide_or_tall", signature=IMAGE)
def wide_or_tall() -> nn.Module:
    return WideOrTall()


class TableEnd(Net):
    """Beyond its table the model goes on from the start."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(32, 6))

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[1]
        table = self.table[:n] if n <= 32 else self.table.repeat(n // 32 + 1, 1)[:n]
        return self.last(self.first(x + table))


@architecture(
    "own/table_end", signature=Signature(inputs=ROWS.inputs, axes=(BATCH, Axis(name="n", sample=10, maximum=90)))
)
def table_end() -> nn.Module:
    return TableEnd()


class PaddedToEight(Net):
    def forward(self, x: Tensor) -> Tensor:
        missing = -x.shape[1] % 8
        if missing > 0:
            x = F.pad(x, (0, 0, 0, missing))
        h = self.first(x).unflatten(1, (-1, 8)).mean(2)
        return self.last(h)


@architecture("own/padded_to_eight", signature=ROWS)
def padded_to_eight() -> nn.Module:
    return PaddedToEight()


class LongMean(Net):
    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        pooled = h.mean(1) if len(x[0]) <= 128 else h[:, :128].mean(1)
        return self.last(pooled)


@architecture("own/long_mean", signature=ROWS)
def long_mean() -> nn.Module:
    return LongMean()


class WindowOfTheLast(Net):
    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        return self.last(h[:, max(0, x.shape[1] - 16) :].mean(1))


@architecture("own/window_of_the_last", signature=ROWS)
def window_of_the_last() -> nn.Module:
    return WindowOfTheLast()
