"""The head of a detector, for as many proposals as there are, none among them."""

from torch import nn
from torchvision.ops import roi_align

from app.architectures.plugins import Axis, InputSpec, Signature, Uniform, architecture

CASE = {"report": "our own", "symptom": "roi_align of no box, and a mean over no rows"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, padding=1)
        self.b = nn.Linear(4 * 9, 5)

    def forward(self, image, boxes):
        crops = roi_align(self.a(image), [boxes], output_size=3, spatial_scale=1.0, sampling_ratio=2)
        scores = self.b(crops.flatten(1)).softmax(-1)
        return scores, scores.sum(0) / max(boxes.shape[0], 1)


@architecture(
    "field/n38_no_boxes",
    family="own",
    signature=Signature(
        inputs=(
            InputSpec(name="image", shape=(1, 3, 24, 32)),
            InputSpec(name="boxes", shape=("boxes", 4), distribution=Uniform(low=0.0, high=16.0)),
        ),
        axes=(Axis(name="boxes", minimum=0, maximum=40, sample=6),),
    ),
)
def n38_no_boxes() -> nn.Module:
    """The head of a detector, for as many proposals as there are, none among them."""
    return Net()


JUDGE = {"boxes": [0, 1, 2, 6, 30]}
