"""No session of an artifact ends its process, in whichever order the model moves, casts and multiplies."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from app.domain.architecture import InputSpec, Integers
from app.targets.onnx.reading.runtime import OnnxRuntime
from app.targets.onnx.spec import OnnxOptions
from app.targets.onnx.writing.writer import WRITER
from tests.targets.capturing import draw, request_for, train_a_little

OPEN = "import onnxruntime, sys; onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])"
"""As a client opens it: by onnxruntime's defaults."""
WITH_BATCH = [(1, 0, 2), (1, 2, 0), (2, 0, 1), (0, 2, 1), (1, 2, 0, 3), (1, 2, 3, 0), (1, 0, 2, 3), (2, 1, 0, 3)]
SIZES = (4, 6, 8, 10)


class Multiplied(nn.Module):
    """A linear layer behind a permutation, with what stands between them."""

    def __init__(self, permutation: Sequence[int], between: Callable[[Tensor], Tensor], *, bias: bool = False) -> None:
        super().__init__()
        self.permutation, self.between = tuple(permutation), between
        self.last = nn.Linear(SIZES[permutation[-1]], 5, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(x.permute(self.permutation)))


class Attending(nn.Module):
    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Recurring(nn.Module):
    def __init__(self, kind: str, *, batch_first: bool) -> None:
        super().__init__()
        self.layer = getattr(nn, kind)(8, 6, num_layers=2, bidirectional=True, batch_first=batch_first)
        self.last = nn.Linear(12, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layer(x)[0])


def written(module: nn.Module, spec: InputSpec, options: OnnxOptions, directory: Path) -> tuple[Path, Tensor, Tensor]:
    """The artifact, an input and what the model gives for it."""
    request = request_for(train_a_little(module, 1), spec, options)
    WRITER.build_template(WRITER.capture(request, "dynamo"), request, directory / "template")
    template = WRITER.load_template(directory / "template")
    path = WRITER.fill(template, request.module.state_dict(), request, directory / "model.onnx").path
    x = draw(spec, 4)
    with torch.inference_mode():
        return path, x, request.module(x)


def refuse_a_crash(path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", OPEN, str(path)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("permutation", WITH_BATCH)
def test_linear_layers_behind_permutations_in_half_precision(
    permutation: tuple[int, ...], bias: bool, tmp_path: Path
) -> None:
    spec = InputSpec(name="x", shape=SIZES[: len(permutation)])
    module = Multiplied(permutation, lambda x: x, bias=bias)
    path, x, expected = written(module, spec, OnnxOptions(precision="fp16"), tmp_path)
    refuse_a_crash(path)
    (given,) = OnnxRuntime(path).run({"x": x}).values()
    torch.testing.assert_close(given, expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("cast", [Tensor.float, lambda x: x.bool().float(), lambda x: x.double().float()])
@pytest.mark.parametrize("permutation", WITH_BATCH)
def test_casts_between_a_permutation_and_a_linear_layer(
    permutation: tuple[int, ...], cast: Callable[[Tensor], Tensor], tmp_path: Path
) -> None:
    distribution = Integers(low=0, high=9)
    spec = InputSpec(name="x", dtype="int64", shape=SIZES[: len(permutation)], distribution=distribution)
    path, x, expected = written(Multiplied(permutation, cast), spec, OnnxOptions(), tmp_path)
    refuse_a_crash(path)
    (given,) = OnnxRuntime(path).run({"x": x}).values()
    torch.testing.assert_close(given, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("kind", ["attention", "LSTM", "GRU", "RNN"])
def test_layers_that_move_the_batch_in_half_precision(kind: str, batch_first: bool, tmp_path: Path) -> None:
    module = Attending(batch_first=batch_first) if kind == "attention" else Recurring(kind, batch_first=batch_first)
    spec = InputSpec(name="x", shape=(3, 5, 8))
    path, x, expected = written(module, spec, OnnxOptions(precision="fp16"), tmp_path)
    refuse_a_crash(path)
    (given,) = OnnxRuntime(path).run({"x": x}).values()
    torch.testing.assert_close(given, expected, rtol=0.02, atol=0.02)
