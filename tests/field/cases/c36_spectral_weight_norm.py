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

from torch.nn.utils import parametrizations as P, weight_norm as old_wn, spectral_norm as old_sn

CASE = dict(
    report="2noise/ChatTTS#86 (2024), huggingface/transformers#26796/#32194 (2024)",
    symptom="weight/spectral norm, old and parametrised: keys and folded weights",
)


class Disc(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = P.weight_norm(nn.Conv1d(3, 8, 5, padding=2))
        self.b = P.spectral_norm(nn.Conv1d(8, 8, 3, padding=1))
        self.c = P.weight_norm(nn.ConvTranspose1d(8, 6, 4, 2, 1))
        self.d = old_sn(nn.Linear(6, 4))

    def forward(self, x):
        return self.d(self.c(F.leaky_relu(self.b(F.leaky_relu(self.a(x), 0.1)), 0.1)).transpose(1, 2))


@architecture(
    "field/disc",
    family="tts",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", 3, "time")),),
        axes=(Axis(name="batch"), Axis(name="time", minimum=4, sample=20)),
    ),
)
def disc() -> nn.Module:
    """Normed weights."""
    return Disc()


JUDGE = dict(time=[4, 20, 57])


def rename_old(sd):
    """A checkpoint from before parametrizations: a.weight_g, a.weight_v."""
    return {
        k.replace("a.parametrizations.weight.original0", "a.weight_g").replace(
            "a.parametrizations.weight.original1", "a.weight_v"
        ): v
        for k, v in sd.items()
    }
