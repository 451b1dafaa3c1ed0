"""Small architectures whose Python decides on values of the inputs, or on sizes that values decide."""

import torch
from recast_plugins import Axis, InputSpec, Integers, Signature, architecture
from torch import Tensor, nn

ROWS = Signature(inputs=(InputSpec(name="x", shape=("n", 6)),), axes=(Axis(name="n", sample=12, minimum=4),))
TOKENS = Signature(
    inputs=(InputSpec(name="ids", dtype="int64", shape=("batch", "n"), distribution=Integers(low=0, high=9)),),
    axes=(Axis(name="batch"), Axis(name="n", sample=7, maximum=40)),
)
JUDGE = {
    name: {"n": [4, 12, 30]} for name in ("own/none_above", "own/few_unique", "own/any_large", "own/count_of_mask")
}


def extra(draw, module):
    """Rows on which the rarer way is taken."""
    plain = draw(n=12)
    if "ids" in plain:
        return [{"ids": torch.full_like(plain["ids"], 3)}, {"ids": torch.zeros_like(plain["ids"])}]
    return [{"x": plain["x"] * scale} for scale in (1e-3, -1.0, 100.0)] + [
        {"x": -plain["x"].abs()},
        {"x": plain["x"].abs()},
    ]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.last = nn.Linear(8, 4)
        self.table = nn.Embedding(10, 6)


class NoneAbove(Net):
    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        found = (h[:, 0] > 0).nonzero().squeeze(-1)
        if found.numel() == 0:
            return self.last(h).mean(0, keepdim=True) * 0
        return self.last(h[found]).amax(0, keepdim=True)


@architecture("own/none_above", signature=ROWS)
def none_above() -> nn.Module:
    return NoneAbove()


class FewUnique(Net):
    def forward(self, ids: Tensor) -> Tensor:
        h = self.table(ids)
        if torch.unique(ids).shape[0] < 3:
            h = h * 3
        return self.last(self.first(h)).mean(1)


@architecture("own/few_unique", signature=TOKENS)
def few_unique() -> nn.Module:
    return FewUnique()


class AnyLarge(Net):
    def forward(self, x: Tensor) -> Tensor:
        if x.abs().max().item() > 50:
            x = x / 50
        return self.last(self.first(x))


@architecture("own/any_large", signature=ROWS)
def any_large() -> nn.Module:
    return AnyLarge()


class CountOfMask(Net):
    def forward(self, x: Tensor) -> Tensor:
        count = int((x[:, 0] > 0).sum())
        h = self.first(x)
        return self.last(h[: max(count, 1)]).mean(0, keepdim=True)


@architecture("own/count_of_mask", signature=ROWS)
def count_of_mask() -> nn.Module:
    return CountOfMask()


class AllTheSame(Net):
    """A row of one token only."""

    def forward(self, ids: Tensor) -> Tensor:
        same = bool((ids == ids[:, :1]).all())
        h = self.table(ids)
        return self.last(self.first(h * 2 if same else h)).mean(1)


@architecture("own/all_the_same", signature=TOKENS)
def all_the_same() -> nn.Module:
    return AllTheSame()


class WarmingUp(Net):
    """Counts its calls in a tensor that is no buffer, up to two."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1).clamp_(max=2)
        return self.last(self.first(x)) * self.calls


@architecture("own/warming_up", signature=ROWS)
def warming_up() -> nn.Module:
    return WarmingUp()


class GivingWeights(Net):
    """Gives its own tensors back, as they are and turned."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.last(self.first(x)), self.first.weight.t(), self.last.bias


@architecture("own/giving_weights", signature=ROWS)
def giving_weights() -> nn.Module:
    return GivingWeights()
