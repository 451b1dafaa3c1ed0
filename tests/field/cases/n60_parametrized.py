"""Weights of several parametrizations, one upon the other."""

from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {
    "report": "our own",
    "symptom": "spectral norm, weight norm of the whole, orthogonal and a parametrization of one's own",
}


class Symmetric(nn.Module):
    def forward(self, weight):
        return weight.triu() + weight.triu(1).transpose(-1, -2)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        norms = nn.utils.parametrizations
        self.a = norms.weight_norm(nn.Linear(8, 12), dim=None)
        self.b = norms.spectral_norm(nn.Linear(12, 12), n_power_iterations=3)
        self.c = norms.orthogonal(nn.Linear(12, 12, bias=False))
        self.d = nn.Linear(12, 12)
        nn.utils.parametrize.register_parametrization(self.d, "weight", Symmetric())
        norms.weight_norm(self.d, "bias", dim=0)
        self.e = nn.utils.spectral_norm(nn.Conv1d(12, 4, 3, padding=1))

    def forward(self, x):
        h = self.d(self.c(self.b(self.a(x).relu()).relu()).relu())
        return self.e(h.transpose(1, 2))


@architecture(
    "field/n60_parametrized",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "length", 8)),),
        axes=(
            Axis(name="batch"),
            Axis(name="length", maximum=200, sample=20),
        ),
    ),
)
def n60_parametrized() -> nn.Module:
    """Weights of several parametrizations, one upon the other."""
    return Net()


JUDGE = {"length": [1, 2, 3, 7, 16, 19, 20, 21, 33, 64, 65, 130]}
