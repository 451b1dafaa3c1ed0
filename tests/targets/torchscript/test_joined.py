"""Joined traces are methods of one module, which holds the weights under the architecture's keys."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from app.architectures.sample import sample_inputs
from app.domain.architecture import Axis, InputSpec, Signature
from app.targets.capturing.side import Side
from app.targets.request import ExportRequest
from app.targets.torchscript.spec import TorchScriptOptions
from app.targets.torchscript.writing.writer import WRITER

AXES = (Axis(name="batch"), Axis(name="length", sample=5))
SIDES = (Side({"batch": 2, "length": 5}, ("length <= 8",)), Side({"batch": 2, "length": 9}))


class Tables(nn.Module):
    """Keeps a table for the longest input, and takes another way beyond it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 3)
        self.table = [torch.arange(8.0)]
        self.register_forward_hook(lambda module, given, result: {"twice": result["out"] * 2, **result})

    def forward(self, x: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        h = self.first(x) if mask is None else self.first(x) * mask.unsqueeze(-1)
        if x.shape[1] > 8:
            self.table[0] = torch.arange(x.shape[1]).float()
            h = h.sigmoid()
        return {"out": h + self.table[0][: x.shape[1], None]}


@pytest.mark.parametrize(
    "inputs",
    [
        (InputSpec(name="x", shape=("batch", "length", 4)),),
        (InputSpec(name="mask", shape=("batch", "length")), InputSpec(name="x", shape=("batch", "length", 4))),
        (InputSpec(name="renamed", argument="x", shape=("batch", "length", 4)),),
        (InputSpec(name="by_position", shape=("batch", "length", 4)),),
    ],
)
def test_each_size_takes_its_own_trace(inputs: tuple[InputSpec, ...], tmp_path: Path) -> None:
    module, signature = Tables().eval(), Signature(inputs=inputs, axes=AXES)
    before = dict(vars(module))
    request = ExportRequest(
        module, signature, TorchScriptOptions(), sample_inputs(signature, {}, torch.Generator().manual_seed(0))
    )
    captured = WRITER.capture(request, "trace", SIDES)
    assert vars(module) == before
    assert len(module.table[0]) == 8
    torch.jit.save(captured.module, str(tmp_path / "joined.pt"))
    loaded = torch.jit.load(str(tmp_path / "joined.pt"))
    assert loaded.state_dict().keys() == module.state_dict().keys()
    for length in (1, 5, 8, 9, 20):
        given = {"x": torch.randn(3, length, 4), "mask": torch.ones(3, length)}
        values = [given[spec.name if spec.name in given else "x"] for spec in inputs]
        named = dict(zip((i.argument or i.name for i in inputs), values, strict=True))
        positional = "by_position" in named
        result = loaded(*values) if positional else loaded(**named)
        expected = Tables.__call__(module, *values) if positional else module(**named)
        torch.testing.assert_close(result, expected, msg=str(length))
