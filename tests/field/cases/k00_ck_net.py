import torch
import torch.nn.functional as F
from torch import nn
from recast_plugins import Axis, InputSpec, Integers, Mask, Signature, architecture

CASE = dict(report="checkpoint cases", symptom="see ckpts.py")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2),
            nn.BatchNorm2d(8),
            nn.ReLU(),
        )
        self.head = nn.Linear(8, 5)

    def forward(self, image):
        return self.head(self.backbone(image).mean((2, 3)))


@architecture(
    "field/ck_net", family="cnn", signature=Signature(inputs=(InputSpec(name="image", shape=("batch", 3, 16, 16)),))
)
def ck_net() -> nn.Module:
    """A small classifier."""
    return Net()


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(30, 12)
        self.mid = nn.Linear(12, 12)
        self.out = nn.Linear(12, 30, bias=False)
        self.out.weight = self.emb.weight

    def forward(self, ids):
        return self.out(self.mid(self.emb(ids)).tanh())


@architecture(
    "field/ck_tied",
    family="text",
    signature=Signature(
        inputs=(InputSpec(name="ids", dtype="int64", shape=("batch", 6), distribution=Integers(low=0, high=29)),)
    ),
)
def ck_tied() -> nn.Module:
    """Tied head."""
    return Tied()
