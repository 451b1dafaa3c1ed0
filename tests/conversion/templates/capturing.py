"""Small networks with non-degenerate weights, and unoptimised captures of them."""

import warnings
from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Captured:
    model: ir.Model
    warnings: tuple[str, ...] = ()
    exporter: str = "dynamo"


def capture(module: nn.Module, inputs: dict[str, Tensor], axes: dict[str, dict[int, str]]) -> Captured:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module, (), kwargs=inputs, dynamo=True, optimize=False, dynamic_shapes=axes, verbose=False
        )
    assert program is not None
    for node in program.model.graph:
        node.metadata_props.clear()
    return Captured(program.model)


def train_a_little(module: nn.Module, seed: int) -> nn.Module:
    """Give every tensor values of the size that training leaves, so that each of them moves the output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if key.endswith("running_var"):
                tensor.copy_(0.5 + noise.abs())
            elif tensor.dim() < 2:
                tensor.add_(0.1 * noise)
            else:
                tensor.copy_(noise * (tensor.shape[0] / tensor.numel()) ** 0.5)
    return module.eval()


class ConvNet(nn.Module):
    """Convolution, batch norm, and an auxiliary head that the output does not depend on."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.aux = nn.Linear(8, 2)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.bn(self.conv(x))).mean((2, 3)))
