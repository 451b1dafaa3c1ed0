"""Weights in the old form of weight and spectral normalisation, for a module in the new one."""

from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from app.architectures.plugins import Axis, InputSpec, Signature, architecture

CASE = {"report": "our own", "symptom": "weight_g and weight_v are read by the parametrization's own load hook"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = weight_norm(nn.ConvTranspose1d(6, 8, 4, stride=2, padding=1), dim=1)
        self.body = nn.ModuleList(weight_norm(nn.Conv1d(8, 8, 3, padding=d, dilation=d)) for d in (1, 3))
        self.out = weight_norm(nn.Linear(8, 2))

    def forward(self, x):
        y = self.up(x)
        for layer in self.body:
            y = y + layer(nn.functional.leaky_relu(y, 0.1))
        return self.out(y.transpose(1, 2)).tanh()


@architecture(
    "field/n42_old_norm_keys",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", 6, "frames")),),
        axes=(Axis(name="batch"), Axis(name="frames", maximum=200, sample=20)),
    ),
)
def n42_old_norm_keys() -> nn.Module:
    """Weights in the old form of weight and spectral normalisation, for a module in the new one."""
    return Net()


JUDGE = {"frames": [1, 7, 20, 90]}


def checkpoint(state):
    old = {"original0": "weight_g", "original1": "weight_v"}
    renamed = {}
    for name, value in state.items():
        owner, _, last = name.rpartition(".")
        known = last in old
        renamed[owner.removesuffix("parametrizations.weight") + old[last] if known else name] = value
    return {"generator": renamed, "steps": 1000}
