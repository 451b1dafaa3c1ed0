"""The oracle's float64 forward equals that of a module converted to float64 as a whole."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from app.conversion.verification.promotion import Promoted, Trace, promotion, unwrap


def widened(module: nn.Module, *inputs: Tensor, trace: Trace | None = None) -> Tensor:
    wide = [Promoted(value.double()) if value.is_floating_point() else value for value in inputs]
    with promotion(trace or Trace()):
        result = module(*wide)
    return unwrap(result[0] if isinstance(result, tuple) else result)


def doubled(module: nn.Module, *inputs: Tensor) -> Tensor:
    with torch.inference_mode():
        values = (value.double() if value.is_floating_point() else value for value in inputs)
        result = copy.deepcopy(module).double()(*values)
    return result[0] if isinstance(result, tuple) else result


class Functional(nn.Module):
    """Uses a child's weight without calling the child, and a bare parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.child = nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.child.weight / self.child.weight.std(), self.child.bias) * self.scale


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y.relu_().add_(1)
        y[:, 0] = y[:, 1] * 2
        return y.unsqueeze(0).squeeze_(0)


@pytest.mark.parametrize(
    ("module", "inputs"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU()), (torch.randn(2, 3, 6, 6),)),
        (nn.LSTM(4, 5, num_layers=2, bidirectional=True), (torch.randn(3, 2, 4),)),
        (nn.GRU(4, 5), (torch.randn(3, 2, 4),)),
        (nn.MultiheadAttention(8, 2, batch_first=True), (torch.randn(2, 3, 8),) * 3),
        (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (torch.randn(2, 3, 8),)),
        (nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), (torch.randn(2, 4),)),
        (nn.Embedding(10, 4), (torch.tensor([[0, 9]]),)),
        (Functional(), (torch.randn(2, 4),)),
        (InPlace(), (torch.randn(2, 3, 6, 6),)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_equals_a_float64_copy(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    module.eval()
    result, expected = widened(module, *inputs), doubled(module, *inputs)
    assert result.dtype == torch.float64
    assert (result - expected).abs().max() <= 1e-14 * expected.abs().max()


def test_code_that_insists_on_float32_loses_nothing() -> None:
    class Insistent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 4))

        def forward(self, x: Tensor) -> Tensor:
            assert x.dtype == self.weight.dtype == torch.float32
            mask = torch.zeros(4, dtype=torch.float32)
            mask = mask.masked_fill(torch.tensor([True, False, False, False]), torch.finfo(x.dtype).min)
            return torch.softmax((x.float() @ self.weight.to(torch.float32)) / 3 + mask, dim=-1).to(x.dtype)

    module, x = Insistent(), torch.randn(2, 4)
    expected = torch.softmax((x.double() @ module.weight.double()) / 3 + torch.tensor([-1e300, 0, 0, 0]), dim=-1)
    assert (widened(module, x) - expected).abs().max() < 1e-15


def test_a_float32_buffer_that_the_forward_writes_stays_usable() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("total", torch.zeros(3))

        def forward(self, x: Tensor) -> Tensor:
            self.total.add_(x)
            return self.total * 2

    module = Counting()
    assert torch.equal(widened(module, torch.ones(3)), torch.full((3,), 2.0, dtype=torch.float64))
    assert module.total.dtype == torch.float32


def test_the_modules_own_tensors_are_left_alone() -> None:
    module = nn.Linear(4, 4)
    before = {name: (value.data_ptr(), value.clone()) for name, value in module.state_dict().items()}
    widened(module, torch.randn(2, 4))
    assert all(
        value.data_ptr() == before[name][0] and torch.equal(value, before[name][1])
        for name, value in module.state_dict().items()
    )


def test_the_trace_holds_epsilons_gelu_forms_and_choices() -> None:
    class Traced(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = F.gelu(F.layer_norm(x, (4,), eps=3e-5), approximate="tanh")
            x = x / torch.sqrt(x.var(-1, keepdim=True) + 7e-6)
            return x.argmax(-1)

    trace = Trace()
    wide = Promoted(torch.randn(2, 4).double())
    with promotion(trace):
        Traced()(wide)
    assert {3e-5, 7e-6} <= trace.scalars
    assert dict(trace.calls[1].attributes) == {"approximate": "tanh"}
    assert len(trace.choices) == 1
