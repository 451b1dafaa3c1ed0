"""An axis that the model itself cannot vary is refused before anything is exported."""

import pytest
import torch
from torch import Tensor, nn

from app.architectures.sample import sample_inputs
from app.conversion.asked_axes import refuse_fixed_axes
from app.domain.architecture import Axis, InputSpec, Signature
from app.domain.errors import StaticAxis
from app.targets.onnx.spec import OnnxOptions
from app.targets.request import ExportRequest, requested_signature

DECLARED = Signature(inputs=(InputSpec(name="image", shape=("batch", 3, 32, 32)),), axes=(Axis(name="batch"),))


class Pooled(nn.Module):
    """Any height and width; three channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, image: Tensor) -> Tensor:
        return self.conv(image).mean((2, 3))


class Patches(nn.Module):
    """Heights and widths that are multiples of 16."""

    def forward(self, image: Tensor) -> Tensor:
        batch, channels, height, width = image.shape
        return image.view(batch, channels, height // 16, 16, width // 16, 16).mean((3, 5))


class Flattened(nn.Module):
    """One height and width."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 32 * 32, 4)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(image.flatten(1))


def refuse(module: nn.Module, axes: dict[int, str]) -> None:
    options = OnnxOptions(dynamic_axes={"image": axes})
    signature = requested_signature(DECLARED, options)
    sample = sample_inputs(signature, {}, torch.Generator().manual_seed(0))
    refuse_fixed_axes(ExportRequest(module.eval(), signature, options, sample), DECLARED)


@pytest.mark.parametrize(
    ("module", "axes"), [(Pooled(), {0: "batch", 2: "h", 3: "w"}), (Patches(), {0: "batch", 3: "w"})]
)
def test_what_the_model_can_vary_is_asked_of_the_exporters(module: nn.Module, axes: dict[int, str]) -> None:
    refuse(module, axes)


@pytest.mark.parametrize(
    ("module", "axes", "place"),
    [(Pooled(), {1: "c"}, "axis 1 of image"), (Flattened(), {0: "batch", 2: "h"}, "axis 2 of image")],
)
def test_what_the_model_cannot_vary_is_refused(module: nn.Module, axes: dict[int, str], place: str) -> None:
    with pytest.raises(StaticAxis, match=f"another size of {place}.*at size"):
        refuse(module, axes)


def test_an_axis_that_the_architecture_declares_is_not_tried() -> None:
    class Two(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image.view(2, -1)

    refuse(Two(), {0: "batch"})
