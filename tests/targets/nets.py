"""Small real networks of the kinds that exporters treat differently, each with its signature."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from app.architectures.sample import sample_inputs
from app.domain.architecture import Axis, InputSpec, Integers, Mask, Signature
from app.targets.onnx.spec import OnnxOptions
from app.targets.request import ExportRequest, requested_signature
from app.targets.torchscript.spec import TorchScriptOptions


@dataclass(frozen=True)
class Case:
    module: nn.Module
    signature: Signature

    def request(self, options: OnnxOptions | TorchScriptOptions) -> ExportRequest:
        signature = requested_signature(self.signature, options)
        sample = sample_inputs(signature, {}, torch.Generator().manual_seed(0))
        return ExportRequest(self.module.eval(), signature, options, sample)


class ConvBn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(torch.relu(self.bn(self.conv(image))).mean((2, 3)))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 8)
        self.lstm = nn.LSTM(8, 6, batch_first=True, bidirectional=True)
        self.head = nn.Linear(12, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.lstm(self.embedding(tokens))[0])


class TwoInputs(nn.Module):
    """Keyword inputs, a dictionary out, one entry of which is another input untouched."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(6, 4)

    def forward(self, *, values: Tensor, mask: Tensor) -> dict[str, Tensor]:
        kept = mask.unsqueeze(-1).to(values.dtype)
        hidden = self.project(values) * kept
        return {"pooled": hidden.sum(1) / kept.sum(1), "hidden": hidden, "seen": mask}


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.decoder = nn.Linear(8, 20, bias=False)
        self.decoder.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.decoder(torch.tanh(self.embedding(tokens)))


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(4, 4)
        self.down = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return self.up(x)
        return self.down(x)


class BatchLoop(nn.Module):
    """A Python loop over the batch: its size is fixed by the code."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.linear(x[i]) * i for i in range(x.shape[0])])


@dataclass
class Pair:
    mean: Tensor
    spread: Tensor


class DataclassOutput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("scale", torch.full((4,), 3.0), persistent=False)

    def forward(self, x: Tensor) -> Pair:
        y = self.linear(x) * self.scale
        return Pair(y.mean(1), y.std(1))


class Spectrum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.eigvals(torch.stft(x * self.gain, 16, return_complex=True)[:, :4, :4]).abs()


class Attention(nn.Module):
    """torch's own encoder layer, whose inference fast path is one fused kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.layer.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class BiasedAttention(nn.Module):
    """Attention under a bias made of a parameter: kernels of other strides are chosen where gradients are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.bias = nn.Linear(16, 16), nn.Parameter(torch.randn(1, 2, 6, 6))

    def forward(self, x: Tensor) -> Tensor:
        heads = self.query(x).view(x.shape[0], 6, 2, 8).transpose(1, 2)
        bias = self.bias * 2
        found = nn.functional.scaled_dot_product_attention(heads, heads, heads, attn_mask=bias)
        return found.transpose(1, 2).reshape(x.shape[0], 6, 16)


def _vector(name: str = "x") -> Signature:
    return Signature(inputs=(InputSpec(name=name, shape=("batch", 4)),))


def _tokens(size: int) -> Signature:
    return Signature(
        inputs=(
            InputSpec(name="tokens", dtype="int64", shape=("batch", "length"), distribution=Integers(high=size - 1)),
        ),
        axes=(Axis(name="batch"), Axis(name="length", sample=7)),
    )


_SAMPLED = {
    "attention": (Attention, ("batch", 5, 8)),
    "biased_attention": (BiasedAttention, ("batch", 6, 16)),
    "spectrum": (Spectrum, ("batch", 64)),
}


def case(kind: str) -> Case:
    torch.manual_seed(0)
    match kind:
        case "conv_bn":
            module = ConvBn()
            torch.nn.init.normal_(module.bn.running_mean)
            torch.nn.init.uniform_(module.bn.running_var, 0.5, 2)
            return Case(module, Signature(inputs=(InputSpec(name="image", shape=("batch", 3, 8, 8)),)))
        case "lstm":
            return Case(Recurrent(), _tokens(50))
        case "two_inputs":
            inputs = (
                InputSpec(name="values", shape=("batch", "length", 6)),
                InputSpec(name="mask", dtype="int64", shape=("batch", "length"), distribution=Mask()),
            )
            axes = (Axis(name="batch"), Axis(name="length", sample=5))
            return Case(TwoInputs(), Signature(inputs=inputs, axes=axes))
        case "tied":
            return Case(Tied(), _tokens(20))
        case "branching":
            return Case(Branching(), _vector())
        case "batch_loop":
            return Case(BatchLoop(), _vector())
        case "dataclass":
            return Case(DataclassOutput(), _vector())
        case "attention" | "biased_attention" | "spectrum":
            module, shape = _SAMPLED[kind]
            return Case(module(), Signature(inputs=(InputSpec(name="x", shape=shape),)))
    raise KeyError(kind)
