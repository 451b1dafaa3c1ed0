"""Three thresholds, suppression and the best of what is left."""

import torchvision
import torch
import torch.nn.functional as F
from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "three thresholds, suppression and the best of what is left"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.box, self.score = nn.Linear(8, 4), nn.Linear(8, 3)

    def forward(self, x):
        centre, size = self.box(x).split(2, 1)
        boxes = torch.cat([centre - size.exp(), centre + size.exp()], 1)
        scores, labels = self.score(x).softmax(1).max(1)
        kept = scores > 0.45
        boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
        keep = torchvision.ops.batched_nms(boxes, scores, labels, 0.5)[:10]
        return boxes[keep], scores[keep], labels[keep]


@architecture(
    "field/n76_box_filter",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("boxes", 8)),), axes=(Axis(name="boxes", minimum=0, maximum=200, sample=30),)
    ),
)
def n76_box_filter() -> nn.Module:
    """Three thresholds, suppression and the best of what is left."""
    return Net()


JUDGE = {"boxes": [0, 1, 2, 10, 30, 31, 100]}


def extra(draw):
    return [{"x": draw()["x"] * 0.0}]
