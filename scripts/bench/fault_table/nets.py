"""Small nets of different kinds with weights that mean something: trained a few steps, batch statistics from data."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from app.architectures.sample import sample_inputs
from app.domain.architecture import Axis, InputSpec, Integers, Mask, OutputSpec, Signature

BATCH = Axis(name="batch", sample=2)
IMAGE = InputSpec(name="image", shape=("batch", 3, 32, 32))
CLASSES = 10


@dataclass(frozen=True)
class Net:
    """One architecture: how to build it, and its signature."""

    name: str
    build: Callable[[], nn.Module]
    signature: Signature
    scriptable: bool = True


def trained(net: Net, seed: int, steps: int = 12) -> nn.Module:
    """The net in eval with weights after a few optimiser steps towards random targets; reproducible by seed."""
    torch.manual_seed(seed)
    module = net.build().train()
    optimiser = torch.optim.AdamW(module.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(seed)
    sizes = {axis.name: 8 if axis.name == "batch" else axis.sample for axis in net.signature.axes}
    for _ in range(steps):
        outputs = module(**sample_inputs(net.signature, sizes, generator))
        loss = sum(F.mse_loss(value, torch.randn_like(value)) for value in _floats(outputs))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return module.eval().requires_grad_(False)


def _floats(outputs: object) -> list[Tensor]:
    if isinstance(outputs, Tensor):
        return [outputs] if outputs.is_floating_point() else []
    values = outputs.values() if isinstance(outputs, dict) else outputs
    return [tensor for value in values for tensor in _floats(value)]


class ConvNet(nn.Module):
    """Residual blocks of convolution and batch norm, as in ResNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.blocks = nn.ModuleList(self._block() for _ in range(3))
        self.head = nn.Linear(16, CLASSES)

    @staticmethod
    def _block() -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(16, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
        )

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        for block in self.blocks:
            x = F.relu(x + block(x))
        return self.head(x.mean((2, 3)))


class DepthwiseNet(nn.Module):
    """Depthwise separable convolutions with squeeze and excitation, as in MobileNetV3."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(3, 24, 1, bias=False), nn.BatchNorm2d(24, eps=1e-3), nn.Hardswish())
        self.depthwise = nn.Sequential(
            nn.Conv2d(24, 24, 5, stride=2, padding=2, groups=24, bias=False), nn.BatchNorm2d(24, eps=1e-3), nn.ReLU()
        )
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(24, 8, 1), nn.ReLU(), nn.Conv2d(8, 24, 1))
        self.project = nn.Sequential(nn.Conv2d(24, 16, 1, bias=False), nn.BatchNorm2d(16, eps=1e-3))
        self.head = nn.Linear(16, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = self.depthwise(self.expand(image))
        x = self.project(x * F.hardsigmoid(self.squeeze(x)))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class PatchTransformer(nn.Module):
    """Patches, a class token, attention, layer norm and GELU, as in a vision transformer."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 8, stride=8)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.5)
        self.position = nn.Parameter(torch.randn(1, 17, width) * 0.5)
        self.blocks = nn.ModuleList(_TransformerBlock(width) for _ in range(2))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patch(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class _TransformerBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.heads = 4

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        projected = self.qkv(self.norm1(x)).view(n, length, 3, self.heads, width // self.heads)
        q, k, v = projected.permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, length, width)
        x = x + self.out(attended)
        return x + self.mlp(self.norm2(x))


class Mlp(nn.Module):
    """Linear layers with layer norm, GELU and batch norm over features."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(20, 64), nn.LayerNorm(64), nn.GELU(), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.GELU()
        )
        self.head = nn.Linear(64, CLASSES)

    def forward(self, features: Tensor) -> Tensor:
        return self.head(self.layers(features))


class Recurrent(nn.Module):
    """A bidirectional LSTM over sequences of any length."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(12, 24, num_layers=2, bidirectional=True, batch_first=True)
        self.norm = nn.LayerNorm(48)
        self.head = nn.Linear(48, CLASSES)

    def forward(self, sequence: Tensor) -> Tensor:
        states, _ = self.lstm(sequence)
        return self.head(self.norm(states))


class TiedLanguageModel(nn.Module):
    """Token embedding and output projection are one tensor."""

    def __init__(self, vocabulary: int = 61, width: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.block = _TransformerBlock(width)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.norm(self.block(self.embedding(tokens))))


class MaskedEncoder(nn.Module):
    """A small BERT of the transformers library: token ids and a padding mask."""

    def __init__(self) -> None:
        super().__init__()
        self.bert = BertModel(
            BertConfig(
                vocab_size=80,
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=64,
                max_position_embeddings=32,
            )
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        result = self.bert(input_ids=input_ids, attention_mask=attention_mask)
        return {"hidden": result.last_hidden_state, "pooled": result.pooler_output}


class ThreeOutputs(nn.Module):
    """A trunk with three outputs of different kinds: logits, features, and the chosen class as integers."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.SiLU())
        self.classify = nn.Linear(16, CLASSES)
        self.regress = nn.Linear(16, 4)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.trunk(image).mean((2, 3))
        logits = self.classify(features)
        return logits, self.regress(features), logits.argmax(1)


class FullyConvolutional(nn.Module):
    """Group norm, any image size: three dynamic axes."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.GELU())
        self.outer = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.GELU())
        self.last = nn.Conv2d(16, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.last(self.outer(self.inner(image)))


LENGTH = Axis(name="length", sample=10, maximum=32)
LOGITS = (OutputSpec(name="logits"),)
PICTURES = Signature(inputs=(IMAGE,), axes=(BATCH,), outputs=LOGITS)
THREE_OUTPUTS = PICTURES.model_copy(
    update={"outputs": (OutputSpec(name="logits"), OutputSpec(name="box"), OutputSpec(name="label"))}
)


def _tokens(name: str, vocabulary: int) -> InputSpec:
    return InputSpec(
        name=name, dtype="int64", shape=("batch", "length"), distribution=Integers(low=0, high=vocabulary - 1)
    )


NETS = (
    Net("conv+BN", ConvNet, PICTURES),
    Net("depthwise", DepthwiseNet, PICTURES),
    Net("transformer", PatchTransformer, PICTURES),
    Net(
        "MLP",
        Mlp,
        Signature(inputs=(InputSpec(name="features", shape=("batch", 20)),), axes=(BATCH,), outputs=LOGITS),
    ),
    Net(
        "LSTM",
        Recurrent,
        Signature(
            inputs=(InputSpec(name="sequence", shape=("batch", "length", 12)),), axes=(BATCH, LENGTH), outputs=LOGITS
        ),
    ),
    Net(
        "tied weights",
        TiedLanguageModel,
        Signature(inputs=(_tokens("tokens", 61),), axes=(BATCH, LENGTH), outputs=LOGITS),
    ),
    Net(
        "integer inputs",
        MaskedEncoder,
        Signature(
            inputs=(
                _tokens("input_ids", 80),
                InputSpec(name="attention_mask", dtype="int64", shape=("batch", "length"), distribution=Mask()),
            ),
            axes=(BATCH, LENGTH),
            outputs=(OutputSpec(name="hidden"), OutputSpec(name="pooled")),
        ),
        scriptable=False,
    ),
    Net("multi-output", ThreeOutputs, THREE_OUTPUTS),
    Net(
        "three axes",
        FullyConvolutional,
        Signature(
            inputs=(InputSpec(name="image", shape=("batch", 3, "height", "width")),),
            axes=(BATCH, Axis(name="height", minimum=8, sample=24), Axis(name="width", minimum=8, sample=20)),
            outputs=(OutputSpec(name="map"),),
        ),
    ),
)
