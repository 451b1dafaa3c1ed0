"""Small networks that hold every situation a ledger must explain, and their artifacts by every way of capturing."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from app.architectures.sample import sample_inputs
from app.conversion.verification.ledger.ledger import ledger_of
from app.domain.architecture import Axis, InputSpec, Integers, Normal, Signature
from app.domain.checkpoint import LoadReport
from app.domain.report import Ledger
from app.targets.onnx.spec import OnnxOptions
from app.targets.reader import reader_of
from app.targets.request import ExportRequest
from app.targets.torchscript.spec import TorchScriptOptions
from tests.conversion.verification.subjects import Filled, filled


class Convolutions(nn.Module):
    """Batch norms behind plain, depthwise, biased and transposed grouped convolutions, one alone, and a layer scale."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8, eps=1e-3))
        self.twin = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8))
        self.plain = nn.BatchNorm2d(8, affine=False)
        self.up = nn.Sequential(nn.ConvTranspose2d(8, 8, 2, stride=2, groups=2, bias=False), nn.BatchNorm2d(8))
        self.gain = nn.Parameter(torch.ones(8, 1, 1))
        self.head = nn.Linear(8, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        x = x + self.twin(torch.relu(self.depthwise(x))) * self.gain
        x = self.up(torch.relu(self.plain(torch.relu(x))))
        return self.head(x.mean((2, 3)))


class Perceptron(nn.Module):
    """Linear layers of one shape, a batch norm behind the last, and a layer that the forward leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 12))
        self.norm = nn.BatchNorm1d(12)
        self.spare = nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.layers(x))


class Recurrent(nn.Module):
    """Token ids, a bidirectional LSTM of two layers with equal sizes, a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.lstm = nn.LSTM(8, 8, num_layers=2, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(16, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x, _ = self.lstm(self.embedding(ids))
        x, _ = self.gru(x)
        return self.head(x[:, -1])


class Transformer(nn.Module):
    """Two attention layers, tied embeddings, a class token, a scale by exp, a shifted gain, a non-persistent buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        self.token = nn.Parameter(torch.zeros(1, 1, 16))
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.scale = nn.Parameter(torch.tensor(0.3))
        self.gain = nn.Parameter(torch.zeros(16))
        self.register_buffer("position", torch.sin(torch.arange(6 * 16).float()).reshape(1, 6, 16), persistent=False)
        self.head = nn.Linear(16, 20, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids) + self.position
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        x = self.encoder(x) * self.scale.exp() * (1 + self.gain)
        return self.head(x)


class Standardised(nn.Module):
    """Weights that an expression prepares before the inputs meet them: standardisation, a gathered table, a slice."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(6, 3, 3, 3))
        self.gamma = nn.Parameter(torch.ones(6, 1, 1, 1))
        self.table = nn.Parameter(torch.zeros(9, 6))
        self.register_buffer("index", torch.randperm(36) % 9)
        self.long = nn.Parameter(torch.zeros(6, 10, 10))

    def forward(self, image: Tensor) -> Tensor:
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        scale = torch.rsqrt(self.weight.var((1, 2, 3), keepdim=True, unbiased=False) + 1e-5) * self.gamma
        x = functional.conv2d(image, (self.weight - mean) * scale, padding=1)
        x = x + self.long[:, :6, :6]
        bias = self.table[self.index].reshape(6, 6, 6).permute(2, 0, 1)
        return x * bias


def _image() -> InputSpec:
    return InputSpec(name="image", shape=("batch", 3, 6, 6), distribution=Normal())


def _ids() -> InputSpec:
    return InputSpec(name="ids", dtype="int64", shape=("batch", 6), distribution=Integers(low=0, high=19))


def _vector() -> InputSpec:
    return InputSpec(name="x", shape=("batch", 12), distribution=Normal())


NETWORKS: dict[str, tuple[Callable[[], nn.Module], InputSpec]] = {
    "convolutions": (Convolutions, _image()),
    "perceptron": (Perceptron, _vector()),
    "recurrent": (Recurrent, _ids()),
    "transformer": (Transformer, _ids()),
    "standardised": (Standardised, _image()),
}

WAYS: dict[str, tuple[str, OnnxOptions | TorchScriptOptions]] = {
    "dynamo": ("dynamo", OnnxOptions()),
    "torchscript": ("torchscript", OnnxOptions()),
    "trace": ("trace", TorchScriptOptions(check_trace=False)),
    "script": ("script", TorchScriptOptions()),
    "frozen_trace": ("trace", TorchScriptOptions(check_trace=False, freeze=True)),
    "frozen_script": ("script", TorchScriptOptions(freeze=True)),
}
"""Exporter and options by name."""


def signature_of(network: str) -> Signature:
    return Signature(inputs=(NETWORKS[network][1],), axes=(Axis(name="batch"),))


def build(network: str, seed: int = 0) -> nn.Module:
    """The network in eval mode with weights that no two tensors share and that no default equals."""
    torch.manual_seed(seed)
    module = NETWORKS[network][0]().eval()
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith("running_var"):
                tensor.copy_(torch.rand(tensor.shape) + 0.5)
            elif tensor.is_floating_point():
                tensor.add_(torch.randn(tensor.shape) * 0.2)
    return module


def upload(module: nn.Module) -> dict[str, Tensor]:
    """A state dict in memory of its own, as a client sends it."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


@dataclass(frozen=True)
class Exports:
    """The artifacts of one module, by way of capturing."""

    module: nn.Module
    made: dict[str, Filled]

    def ledger(self, way: str, network: str, *, path: Path | None = None, module: nn.Module | None = None) -> Ledger:
        """The ledger of the artifact, or of another file or against another module in its place."""
        module = module or self.module
        return ledger_of(
            reader_of(WAYS[way][1].target).tensors(path or self.made[way].path),
            self.made[way].claims,
            uploaded=upload(module),
            load=LoadReport(strict=True),
            module=module,
            signature=signature_of(network),
        )


def export_all(module: nn.Module, network: str, directory: Path) -> Exports:
    """Write the module by every way."""
    signature = signature_of(network)
    sample = sample_inputs(signature, {}, torch.Generator().manual_seed(0))
    made = {}
    for way, (exporter, options) in WAYS.items():
        (directory / way).mkdir()
        made[way] = filled(ExportRequest(module, signature, options, sample), exporter, directory / way)
    return Exports(module, made)
