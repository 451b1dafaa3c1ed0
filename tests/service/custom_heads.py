"""Ten kinds of heads as tutorials publish them, each with the recipe that says the same without code."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel

BERT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 37, "vocab_size": 99}
LINEAR = {"Linear": {"out_features": 5}}


@dataclass(frozen=True)
class Published:
    """A model as its author builds it, and the recipe for it."""

    build: Callable[[], nn.Module]
    recipe: dict[str, Any]


def sequential_head() -> nn.Module:
    """pytorch.org, "Transfer Learning for Computer Vision": model.fc in the place of the last layer."""
    model = timm.create_model("test_resnet")
    model.fc = nn.Sequential(nn.Dropout(0.2), nn.Linear(model.num_features, 37))
    return model


def named_classifier() -> nn.Module:
    """Udacity's image classifier: an OrderedDict of layers, ending in LogSoftmax."""
    model = timm.create_model("test_resnet")
    layers = [("fc1", nn.Linear(model.num_features, 64)), ("relu", nn.ReLU()), ("drop", nn.Dropout(0.5))]
    layers += [("fc2", nn.Linear(64, 5)), ("output", nn.LogSoftmax(dim=1))]
    model.fc = nn.Sequential(OrderedDict(layers))
    return model


def deep_classifier() -> nn.Module:
    """Keras' habit in PyTorch: batch norm, a hidden layer and dropout in the place of the classifier."""
    model = timm.create_model("test_efficientnet")
    size = model.num_features
    model.classifier = nn.Sequential(
        nn.BatchNorm1d(size), nn.Linear(size, 32), nn.ReLU(), nn.Dropout(0.4), nn.Linear(32, 5)
    )
    return model


class _ConcatPool(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ap, self.mp = nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.mp(x), self.ap(x)], 1)


def fastai_learner() -> nn.Module:
    """fastai's vision_learner: the children of the body, and create_head."""
    body = nn.Sequential(*list(timm.create_model("test_resnet").children())[:-2])
    size = 2 * _channels(body)
    head = nn.Sequential(
        *(_ConcatPool(), nn.Flatten(), nn.BatchNorm1d(size), nn.Dropout(0.25), nn.Linear(size, 64, bias=False)),
        *(nn.ReLU(inplace=True), nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Linear(64, 5, bias=False)),
    )
    return nn.Sequential(body, head)


class TwoHeaded(nn.Module):
    """Age and gender of UTKFace's tutorials: a backbone without its classifier, and two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = timm.create_model("test_resnet")
        size = self.backbone.fc.in_features
        self.backbone.fc = nn.Identity()
        self.age = nn.Sequential(nn.Linear(size, 16), nn.ReLU(), nn.Linear(16, 1))
        self.gender = nn.Linear(size, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.backbone(x)
        return self.age(features), self.gender(features)


class Embedding(nn.Module):
    """Metric learning's: a projection, normalized."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = timm.create_model("test_resnet")
        self.trunk.fc = nn.Linear(self.trunk.fc.in_features, 24, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.normalize(self.trunk(x), p=2, dim=1)


class Segmentation(nn.Module):
    """A fully convolutional head on a truncated body, scaled up to the input."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(*list(timm.create_model("test_resnet").children())[:-2])
        size = _channels(self.body)
        self.head = nn.Sequential(
            *(nn.Conv2d(size, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout(0.1)),
            *(nn.Conv2d(16, 4, 1), nn.Upsample(scale_factor=4, mode="bilinear", align_corners=False)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class Pyramid(nn.Module):
    """A feature extractor: two maps of the body, as detectors take them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = timm.create_model("test_resnet")
        self.body.fc = nn.Identity()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        body = self.body
        x = body.maxpool(body.act1(body.bn1(body.conv1(x))))
        low = body.layer2(body.layer1(x))
        return low, body.layer4(body.layer3(low))


class SentimentClassifier(nn.Module):
    """Venelin Valkov's "Sentiment Analysis with BERT": dropout and a layer on the pooled output."""

    def __init__(self) -> None:
        super().__init__()
        self.bert = BertModel(BertConfig(**BERT))
        self.drop = nn.Dropout(p=0.3)
        self.out = nn.Linear(self.bert.config.hidden_size, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        pooled = self.bert(input_ids=input_ids, attention_mask=attention_mask).pooler_output
        return self.out(self.drop(pooled))


def grey_regression() -> nn.Module:
    """X-rays: one channel in, one number between 0 and 1 out."""
    model = timm.create_model("test_resnet")
    model.conv1[0] = nn.Conv2d(1, 16, 3, stride=2, padding=1, bias=False)
    model.fc = nn.Sequential(nn.Linear(model.fc.in_features, 1), nn.Sigmoid())
    return model


def _channels(body: nn.Module) -> int:
    with torch.no_grad():
        return int(body.eval()(torch.zeros(1, 3, 64, 64)).shape[1])


def published() -> dict[str, Published]:
    relu, flat = "ReLU", "Flatten"
    return {
        "sequential-head": Published(
            sequential_head,
            {
                "base": "timm/test_resnet",
                "replace": {"fc": [{"Dropout": {"p": 0.2}}, {"Linear": {"out_features": 37}}]},
                "outputs": ["logits"],
            },
        ),
        "named-classifier": Published(
            named_classifier,
            {
                "base": "timm/test_resnet",
                "replace": {
                    "fc": [
                        {"Linear": {"out_features": 64}, "name": "fc1"},
                        {relu: {}, "name": "relu"},
                        {"Dropout": {}, "name": "drop"},
                        {**LINEAR, "name": "fc2"},
                        {"LogSoftmax": {"dim": 1}, "name": "output"},
                    ]
                },
            },
        ),
        "deep-classifier": Published(
            deep_classifier,
            {
                "base": "timm/test_efficientnet",
                "replace": {
                    "classifier": [
                        "BatchNorm1d",
                        {"Linear": {"out_features": 32}},
                        relu,
                        {"Dropout": {"p": 0.4}},
                        LINEAR,
                    ]
                },
            },
        ),
        "fastai-learner": Published(
            fastai_learner,
            {
                "base": "timm/test_resnet",
                "children": -2,
                "prefix": "0",
                "heads": {
                    "1": [
                        *("AdaptiveConcatPool2d", flat, "BatchNorm1d", {"Dropout": {"p": 0.25}}),
                        *({"Linear": {"out_features": 64, "bias": False}}, {relu: {"inplace": True}}, "BatchNorm1d"),
                        *("Dropout", {"Linear": {"out_features": 5, "bias": False}}),
                    ]
                },
                "outputs": {"logits": "1"},
            },
        ),
        "two-headed": Published(
            TwoHeaded,
            {
                "base": "timm/test_resnet",
                "prefix": "backbone",
                "replace": {"fc": []},
                "heads": {
                    "age": [{"Linear": {"out_features": 16}}, relu, {"Linear": {"out_features": 1}}],
                    "gender": {"Linear": {"out_features": 2}},
                },
            },
        ),
        "embedding": Published(
            Embedding,
            {
                "base": "timm/test_resnet",
                "prefix": "trunk",
                "replace": {"fc": {"Linear": {"out_features": 24, "bias": False}}},
                "heads": {"embedding": "Normalize"},
            },
        ),
        "segmentation": Published(
            Segmentation,
            {
                "base": "timm/test_resnet",
                "children": -2,
                "prefix": "body",
                "heads": {
                    "head": [
                        {"Conv2d": {"out_channels": 16, "kernel_size": 3, "padding": 1, "bias": False}},
                        *("BatchNorm2d", relu, {"Dropout": {"p": 0.1}}),
                        {"Conv2d": {"out_channels": 4, "kernel_size": 1}},
                        {"Upsample": {"scale_factor": 4, "mode": "bilinear", "align_corners": False}},
                    ]
                },
                "outputs": {"mask": "head"},
            },
        ),
        "pyramid": Published(
            Pyramid,
            {
                "base": "timm/test_resnet",
                "prefix": "body",
                "replace": {"fc": []},
                "take": {"low": "layer2", "high": "layer4"},
            },
        ),
        "sentiment": Published(
            SentimentClassifier,
            {
                "base": "transformers/bert",
                "options": BERT,
                "prefix": "bert",
                "heads": {
                    "drop": {"layers": {"Dropout": {"p": 0.3}}, "input": "pooler_output"},
                    "out": {"layers": {"Linear": {"out_features": 3}}, "input": "drop"},
                },
                "outputs": {"logits": "out"},
            },
        ),
        "grey-regression": Published(
            grey_regression,
            {
                "base": "timm/test_resnet",
                "replace": {
                    "conv1.0": {
                        "Conv2d": {"out_channels": 16, "kernel_size": 3, "stride": 2, "padding": 1, "bias": False}
                    },
                    "fc": [{"Linear": {"out_features": 1}}, "Sigmoid"],
                },
                "inputs": {"images": ["batch", 1, 160, 160]},
                "outputs": ["probability"],
            },
        ),
    }
