"""How far rounding alone carries a model's outputs, where one evaluation of eager tells too little."""

import pytest
import torch
from torch import Tensor, nn

from app.architectures.calling import EagerModel, call
from app.conversion.verification.noise import with_noise
from app.conversion.verification.oracle import reference
from app.conversion.verification.probes import draw_probe
from app.conversion.verification.random_rounding import random_rounding
from app.domain.architecture import InputSpec, Integers, OutputSpec, Signature
from tests.conversion.verification.subjects import BATCH, FEATURES, Perceptron

TOKENS = Signature(
    inputs=(InputSpec(name="ids", dtype="int64", shape=("batch", 8), distribution=Integers(low=0, high=9)),),
    axes=(BATCH,),
    outputs=(OutputSpec(name="y"),),
)


class Bag(nn.Module):
    """The mean of embeddings, less most of itself."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.head = nn.Embedding(10, 64), nn.Linear(64, 1)
        self.eval()

    def forward(self, ids: Tensor) -> Tensor:
        score = self.head(self.words(ids).mean(1))
        return score - 0.999 * self.head(self.words(ids.flip(1)).mean(1))


class Biased(Perceptron):
    """What the input adds drowns beside a bias, which is taken off again."""

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.act(1e-4 * self.first(x) + 100) - 100)


@pytest.mark.parametrize(("module", "signature"), [(Bag(), TOKENS), (Biased(), FEATURES)])
def test_rounding_further_on_is_seen(module: nn.Module, signature: Signature) -> None:
    taken = reference(EagerModel(module, signature), draw_probe(signature, {"batch": 1}, 1))
    assert with_noise(taken).gate("y").eager_error >= taken.gate("y").eager_error > 0
    assert with_noise(taken).noise["y", ""] > 2.0**-24 * float(taken.y64["y"].abs().max())


def test_results_are_moved_by_their_last_bit_and_nothing_else() -> None:
    module, x = nn.Linear(6, 400, bias=False).eval(), torch.randn(2, 6)
    kept, given = module.weight.detach().clone(), x.clone()
    plain = call(EagerModel(module, FEATURES), {"x": x})["y"]
    with random_rounding(0):
        moved = call(EagerModel(module, FEATURES), {"x": x})["y"]
    with random_rounding(0):
        again = call(EagerModel(module, FEATURES), {"x": x})["y"]
    assert torch.equal(moved, again)
    assert 0.1 < float((moved != plain).float().mean()) < 0.4
    assert torch.allclose(moved, plain, rtol=2.0**-22, atol=0)
    assert torch.equal(module.weight, kept)
    assert torch.equal(x, given)


def test_what_only_moves_numbers_is_not_rounded() -> None:
    x = torch.randn(2, 6)
    with random_rounding(0):
        assert torch.equal(torch.cat((x.flip(1), x[:, 2:].t().reshape(2, 4)), 1)[:, :6].flip(1), x)
