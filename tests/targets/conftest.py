"""Templates of the small networks, built once; the exporters take most of the time."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from app.targets.onnx.writing.build import build_template
from app.targets.onnx.writing.template import OnnxTemplate, load_onnx_template
from tests.targets.capturing import capture_onnx, train_a_little

TemplateOf = Callable[[type[nn.Module]], OnnxTemplate]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def template_of(tmp_path_factory: pytest.TempPathFactory) -> TemplateOf:
    """The template of a network, built with weights of seed 1, and read back from its file."""

    @cache
    def build(kind: type[nn.Module]) -> OnnxTemplate:
        path: Path = tmp_path_factory.mktemp("template") / "template"
        net = capture_onnx(train_a_little(kind(), 1))
        build_template(net.captured, net.module, path)
        return load_onnx_template(path)

    return build
