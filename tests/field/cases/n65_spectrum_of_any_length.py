"""A spectrum and its inverse at the input's length."""

import torch
from app.architectures.plugins import Axis, InputSpec, Signature, architecture
from torch import nn

CASE = {"report": "our own", "symptom": "stft and istft with a length made of the size"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(16))
        self.gain = nn.Parameter(torch.rand(9, 1))

    def forward(self, x):
        spectrum = torch.stft(x, 16, 4, window=self.window, return_complex=True)
        spectrum = torch.view_as_complex(torch.view_as_real(spectrum) * self.gain[..., None])
        return torch.istft(spectrum, 16, 4, window=self.window, length=x.shape[-1])


@architecture(
    "field/n65_spectrum_of_any_length",
    family="own",
    signature=Signature(
        inputs=(InputSpec(name="x", shape=("batch", "samples")),),
        axes=(
            Axis(name="batch"),
            Axis(name="samples", minimum=16, maximum=400, sample=64),
        ),
    ),
)
def n65_spectrum_of_any_length() -> nn.Module:
    """A spectrum and its inverse at the input's length."""
    return Net()


JUDGE = {"samples": [16, 17, 33, 64, 99, 300]}
