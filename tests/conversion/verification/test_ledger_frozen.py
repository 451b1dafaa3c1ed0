"""Frozen TorchScript: what torch.jit folds, the order of nested calls, constants exchanged between shared modules."""

import itertools
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from app.conversion.verification.ledger.ledger import torchscript_ledger
from app.domain.architecture import Axis, InputSpec, Signature
from app.domain.checkpoint import LoadReport
from app.domain.report import Ledger
from tests.conversion.verification.ledger_cases import upload
from tests.conversion.verification.test_ledger_torchscript import rewrite

BATCH = (Axis(name="batch", sample=2),)
VECTOR = Signature(inputs=(InputSpec(name="x", shape=("batch", 6)),), axes=BATCH)
IMAGE = Signature(inputs=(InputSpec(name="x", shape=("batch", 3, 6, 6)),), axes=BATCH)


class ShiftedConv(nn.Module):
    """Adds to one convolution and subtracts from another: freezing folds both into the biases, the weights stay."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3)
        self.up, self.down = nn.Parameter(torch.randn(1, 6, 1, 1)), nn.Parameter(torch.randn(6, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x) + self.up)) - self.down


class NormedLinear(nn.Module):
    """Batch norms behind linear layers without bias, which optimising writes as products and sums."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(6, 5, bias=False), nn.BatchNorm1d(5)
        self.square, self.last = nn.Linear(5, 5, bias=False), nn.BatchNorm1d(5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.square(torch.relu(self.norm(self.first(x)))))


class Nested(nn.Module):
    """Vectors of one size that the printed code names in another order than it uses them."""

    def __init__(self) -> None:
        super().__init__()
        self.gain, self.scale, self.shift = (nn.Parameter(torch.randn(6)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.shift + self.gain * torch.tanh(x * self.scale)


class Shared(nn.Module):
    """One layer before and after another."""

    def __init__(self) -> None:
        super().__init__()
        self.outer, self.inner = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(torch.relu(self.inner(torch.relu(self.outer(x)))))


class Unrolled(Shared):
    """A loop over the time steps, which a trace unrolls."""

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = self.inner(torch.relu(self.outer(x)))
        return x


class Looped(Shared):
    """A loop that stays one when scripted, and a layer behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(x.shape[0]):
            x = self.inner(torch.relu(self.outer(x)))
        return self.head(x)


class Cells(nn.Module):
    """Recurrent cells, which a trace writes as linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.GRUCell(6, 6), nn.GRUCell(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(x.shape[0], 6)
        for _ in range(2):
            h = self.second(self.first(x, h), h)
        return h


class Branching(nn.Module):
    """A branch for small inputs, with batch norms and a number of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.small = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.PReLU(init=0.2))
        self.large = nn.Sequential(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.PReLU(init=0.3))

    def forward(self, x: Tensor) -> Tensor:
        return self.large(x) if bool(x.abs().mean() > 0.5) else self.small(x)


CASES = [
    *itertools.product((ShiftedConv,), (IMAGE,), ("trace", "script"), (False,)),
    *itertools.product((NormedLinear,), (VECTOR,), ("trace", "script"), (False, True)),
    *itertools.product((Nested, Shared, Unrolled), (VECTOR,), ("trace", "script"), (False,)),
    (Looped, VECTOR, "script", False),
    (Branching, IMAGE, "script", False),
    *itertools.product((Cells,), (VECTOR,), ("trace", "script"), (False,)),
]
Case = tuple[type[nn.Module], Signature, str, bool]


def frozen(case: Case, path: Path) -> tuple[nn.Module, Signature]:
    kind, signature, how, optimised = case
    torch.manual_seed(0)
    module = kind().eval()
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape) if "var" in name else torch.randn(tensor.shape) * 0.2)
    sample = torch.randn(2, *(int(size) for size in signature.inputs[0].shape[1:]))
    captured = torch.jit.script(module) if how == "script" else torch.jit.trace(module, sample)
    result = torch.jit.freeze(captured)
    (torch.jit.optimize_for_inference(result) if optimised else result).save(str(path))
    return module, signature


def ledger_of(path: Path, module: nn.Module, signature: Signature) -> Ledger:
    return torchscript_ledger(path, upload(module), LoadReport(strict=True), module, signature=signature)


def constants(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        found = {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist() if "/constants/" in name}
    return {name: np.frombuffer(data, np.float32) for name, data in found.items() if len(data) != 8}


@pytest.mark.parametrize("case", CASES)
def test_a_faithful_frozen_module_passes(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    module, signature = frozen(case, path)
    assert ledger_of(path, module, signature).problems == ()


@pytest.mark.parametrize("case", CASES)
def test_a_frozen_constant_that_is_another_fails(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    module, signature = frozen(case, path)
    for name, value in constants(path).items():
        changed = value.copy()
        changed[len(value) // 2] *= 1.001
        rewrite(path, {name: changed.tobytes()})
        assert not ledger_of(path, module, signature).passed, name
        rewrite(path, {name: value.tobytes()})


@pytest.mark.parametrize("case", [case for case in CASES if case[0] not in (Cells, Branching)])
def test_frozen_constants_exchanged_fail(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    module, signature = frozen(case, path)
    tried = 0
    for (one, first), (other, second) in itertools.combinations(constants(path).items(), 2):
        if len(first) == len(second):
            tried += 1
            rewrite(path, {one: second.tobytes(), other: first.tobytes()})
            assert not ledger_of(path, module, signature).passed, (one, other)
            rewrite(path, {one: first.tobytes(), other: second.tobytes()})
    assert tried


def test_a_folded_square_weight_transposed_in_place_fails(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    for optimised in (False, True):
        module, signature = frozen((NormedLinear, VECTOR, "trace", optimised), path)
        name, square = next((name, value) for name, value in constants(path).items() if len(value) == 25)
        rewrite(path, {name: np.ascontiguousarray(square.reshape(5, 5).T).tobytes()})
        assert not ledger_of(path, module, signature).passed
