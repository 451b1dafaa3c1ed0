"""Spectra of any length are as exact as PyTorch's, which onnxruntime's own operator is for powers of two only."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from app.domain.architecture import Axis, InputSpec, Signature
from app.targets.onnx.reading.runtime import OnnxRuntime
from app.targets.onnx.spec import OnnxOptions
from app.targets.onnx.writing.writer import WRITER
from app.targets.request import ExportRequest

UNIT = 2.0**-24


class Spectrum(nn.Module):
    def __init__(self, transform: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.transform = transform
        self.gain = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.transform(x * self.gain)


def one_sided(x: Tensor) -> Tensor:
    whole = torch.fft.fft(x, dim=1)  # of the same input
    return torch.view_as_real(torch.fft.rfft(x, dim=1) - 0.5 * whole[:, : x.shape[1] // 2 + 1])


def there_and_back(x: Tensor) -> Tensor:
    return torch.fft.irfft(torch.fft.rfft(x, dim=1), n=x.shape[1], dim=1)


def of_an_image(x: Tensor) -> Tensor:
    return torch.fft.ifft2(torch.fft.fft2(x, norm="ortho") * 2).real


def of_frames(x: Tensor) -> Tensor:
    window = torch.hann_window(60).to(x.dtype)
    return torch.view_as_real(torch.stft(x.flatten(1), 60, 13, window=window, center=False, return_complex=True))


@pytest.mark.parametrize("transform", [one_sided, there_and_back, of_an_image, of_frames])
@pytest.mark.parametrize("varies", [True, False])
def test_a_spectrum_of_any_length_is_exact(
    transform: Callable[[Tensor], Tensor], *, varies: bool, tmp_path: Path
) -> None:
    sizes = (5, 8, 15, 20, 101, 250, 1500) if varies else (100,)
    spec = InputSpec(name="x", shape=("batch", "n" if varies else sizes[-1], 12))
    signature = Signature(inputs=(spec,), axes=(Axis(name="batch"), Axis(name="n", sample=20))[: 1 + varies])
    module, sample = Spectrum(transform).eval(), {"x": torch.randn(2, 20 if varies else sizes[-1], 12)}
    request = ExportRequest(module, signature, OnnxOptions(), sample)
    WRITER.build_template(WRITER.capture(request, "dynamo"), request, tmp_path / "template")
    template = WRITER.load_template(tmp_path / "template")
    path = WRITER.fill(template, module.state_dict(), request, tmp_path / "model.onnx").path
    runtime = OnnxRuntime(path)
    for size in sizes:
        x = torch.randn(3, size, 12, generator=torch.Generator().manual_seed(size))
        exact = transform(x.double())
        (found,) = runtime.run({"x": x}).values()
        assert found.shape == exact.shape
        assert float((found - exact).abs().max()) < 32 * UNIT * float(exact.abs().max())
