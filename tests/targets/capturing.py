"""Small networks with non-degenerate weights, captured by the real exporters."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from app.domain.architecture import Axis, InputSpec, Integers, Signature
from app.targets.onnx.spec import OnnxOptions
from app.targets.onnx.writing import dynamo_exporter as onnx_dynamo
from app.targets.onnx.writing import torchscript_exporter as onnx_torchscript
from app.targets.onnx.writing.captured import CapturedOnnx
from app.targets.request import ExportRequest
from app.targets.templating.archive_layout import Record, lay_out_archive
from app.targets.templating.filling import write_pieces
from app.targets.torchscript.spec import TorchScriptOptions
from app.targets.torchscript.writing import exporter as torchscript
from app.targets.torchscript.writing.archive import archive_records
from app.targets.torchscript.writing.exporter import CapturedTorchScript


class ConvNet(nn.Module):
    """Convolution, batch norm, and an auxiliary head that the output does not depend on."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.aux = nn.Linear(16, 2)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.bn(self.conv(x))).mean((2, 3)))


class Attention(nn.Module):
    """A fused projection whose weight is sliced, and a bias gathered from a table, as vision transformers have them."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Parameter(torch.empty(48, 16))
        self.table = nn.Parameter(torch.empty(7, 2))
        self.register_buffer("index", torch.arange(4)[:, None] - torch.arange(4) + 3)
        self.register_buffer("scale", torch.linspace(0.5, 1.5, 16), persistent=False)
        self.out = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (nn.functional.linear(x * self.scale, part) for part in self.qkv.chunk(3))
        bias = self.table[self.index.view(-1)].view(4, 4, 2).permute(2, 0, 1).unsqueeze(0)
        heads = [part.unflatten(-1, (2, 8)).transpose(1, 2) for part in (q, k, v)]
        mixed = (heads[0] @ heads[1].transpose(-2, -1) + bias).softmax(-1) @ heads[2]
        return self.out(mixed.transpose(1, 2).flatten(-2))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 10, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.lstm(x)[0])


class Tied(nn.Module):
    """A language model's head that shares its embedding's parameter of 512 KiB."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(2048, 64)
        self.mix = nn.Linear(64, 64)
        self.head = nn.Linear(64, 2048, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.mix(self.embedding(x))))


SPECS = {
    ConvNet: InputSpec(name="x", shape=("batch", 3, 8, 8)),
    Attention: InputSpec(name="x", shape=("batch", 4, 16)),
    Recurrent: InputSpec(name="x", shape=("batch", 5, 6)),
    Tied: InputSpec(name="x", dtype="int64", shape=("batch", 5), distribution=Integers(low=0, high=2047)),
}


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
                tensor.copy_(0.2 + 0.1 * noise)
            else:
                tensor.copy_(noise * (tensor.shape[0] / tensor.numel()) ** 0.5)
    return module.eval()


def draw(spec: InputSpec, batch: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = [batch if isinstance(size, str) else size for size in spec.shape]
    if spec.dtype == "int64":
        return torch.randint(0, 2048, shape, generator=generator)
    return torch.randn(shape, generator=generator)


def request_for(
    module: nn.Module, spec: InputSpec | None = None, options: OnnxOptions | TorchScriptOptions | None = None
) -> ExportRequest:
    spec = spec or SPECS[type(module)]  # type: ignore[index]
    axes = tuple(Axis(name=size) for size in spec.shape if isinstance(size, str))
    signature = Signature(inputs=(spec,), axes=axes)
    return ExportRequest(module.eval(), signature, options or OnnxOptions(), {spec.name: draw(spec, 2)})


@dataclass(frozen=True)
class Net:
    """A module, what was asked of the exporter, and what it captured."""

    request: ExportRequest
    captured: CapturedOnnx = field(repr=False)

    @property
    def module(self) -> nn.Module:
        return self.request.module


def capture_onnx(module: nn.Module, spec: InputSpec | None = None, exporter: str = "dynamo") -> Net:
    request = request_for(module, spec)
    capture = {"dynamo": onnx_dynamo.capture, "torchscript": onnx_torchscript.capture}[exporter]
    return Net(request, capture(request))


def capture_torchscript(
    module: nn.Module, method: str = "trace", options: TorchScriptOptions | None = None, spec: InputSpec | None = None
) -> tuple[ExportRequest, CapturedTorchScript]:
    request = request_for(module, spec, options or TorchScriptOptions(check_trace=False))
    return request, torchscript.capture(request, "trace" if method == "trace" else "script")


def save_script(captured: CapturedTorchScript, path: Path, *, keep_debug: bool = False) -> None:
    """The captured module as an archive with its own weights."""
    records = archive_records(captured.module, path, keep_debug=keep_debug)
    write_pieces(lay_out_archive([Record(name, content) for name, content in records.items()]), {}, {}, path)
