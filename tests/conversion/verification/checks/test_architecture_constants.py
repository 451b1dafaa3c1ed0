"""Tables that the architecture keeps or makes arrive with their bytes, whatever name the exporter gave them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from app.conversion.verification.verify import verify
from app.domain.architecture import Axis, InputSpec, Integers, OutputSpec, Signature
from app.domain.report import Reason, Verdict
from tests.conversion.verification.subjects import BATCH, findings, onnx_subject

IDS = Signature(
    inputs=(InputSpec(name="ids", dtype="int64", shape=("batch", 8), distribution=Integers(low=0, high=4999)),),
    axes=(BATCH,),
    outputs=(OutputSpec(name="y"),),
)
SEQUENCE = Signature(
    inputs=(InputSpec(name="x", shape=("batch", "seq", 6)),),
    axes=(BATCH, Axis(name="seq", sample=16, maximum=64)),
    outputs=(OutputSpec(name="y"),),
)
STATIC = Signature(
    inputs=(InputSpec(name="x", shape=("batch", 64, 6)),), axes=(BATCH,), outputs=(OutputSpec(name="y"),)
)


class Lookup(nn.Module):
    """An embedding behind a table of integers, as a buffer or as an attribute."""

    def __init__(self, *, registered: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        table = torch.randperm(5000)
        if registered:
            self.register_buffer("table", table, persistent=False)
        else:
            self.table = table
        self.embedding = nn.Embedding(5000, 4)
        self.eval()

    def forward(self, ids: Tensor) -> Tensor:
        return self.embedding(self.table[ids])


class Causal(nn.Module):
    """Attention behind a mask that the module keeps (a slice is used), keeps the contrary of, or makes."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind, self.query = kind, nn.Linear(6, 6)
        mask = torch.ones(64, 64).tril().bool()
        if kind == "buffer":
            self.register_buffer("mask", mask, persistent=False)
        elif kind == "contrary":
            self.register_buffer("mask", ~mask, persistent=False)
        elif kind == "float":
            self.mask = torch.zeros(64, 64).masked_fill(~mask, -1e9)
        else:
            self.mask = mask
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        scores = self.query(x) @ x.transpose(1, 2)
        if self.kind == "float":
            return (scores + self.mask[:length, :length]).softmax(-1) @ x
        if self.kind == "contrary":
            allowed = (~self.mask)[:length, :length]
        elif self.kind == "made":
            allowed = torch.tensor(np.tril(np.ones((64, 64), bool)).tolist())
        else:
            allowed = self.mask[:length, :length]
        return scores.masked_fill(~allowed, float("-inf")).softmax(-1) @ x


CASES = [
    (Lookup(registered=True), IDS),
    (Lookup(registered=False), IDS),
    (Causal("buffer"), SEQUENCE),
    (Causal("contrary"), SEQUENCE),
    (Causal("float"), SEQUENCE),
    (Causal("attribute"), SEQUENCE),
    (Causal("made"), STATIC),
]
EXPORTERS = ["dynamo", "torchscript"]


def swap_entries(value: NDArray[np.generic]) -> None:
    if value.shape == (5000,):
        value[[1234, 2345]] = value[[2345, 1234]]


def another_row(value: NDArray[np.generic]) -> None:
    """Let one place far behind see what it must not see, or nothing of the others."""
    if value.shape[-2:] == (64, 64):
        value.reshape(64, 64)[50] = value.reshape(64, 64)[0]


def edited(change: Callable[[NDArray[np.generic]], None]) -> Callable[[onnx.ModelProto], None]:
    def edit(model: onnx.ModelProto) -> None:
        constants = [node for node in model.graph.node if node.op_type == "Constant"]
        tensors = [attribute.t for node in constants for attribute in node.attribute if attribute.name == "value"]
        edits = 0
        for tensor in [*model.graph.initializer, *tensors]:
            before = onnx.numpy_helper.to_array(tensor)
            after = before.copy()
            change(after)
            if not np.array_equal(before, after):
                tensor.CopyFrom(onnx.numpy_helper.from_array(after, tensor.name))
                edits += 1
        assert edits == 1

    return edit


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize(("module", "signature"), CASES)
def test_an_honest_table_passes(module: nn.Module, signature: Signature, exporter: str, tmp_path: Path) -> None:
    report = verify(onnx_subject(module, signature, tmp_path, exporter=exporter))
    assert report.verdict in (Verdict.passed, Verdict.pass_with_notes), report.findings


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize(("module", "signature"), CASES)
def test_a_changed_table_fails_the_ledger(
    module: nn.Module, signature: Signature, exporter: str, tmp_path: Path
) -> None:
    change = swap_entries if signature is IDS else another_row
    report = verify(onnx_subject(module, signature, tmp_path, exporter=exporter, edit=edited(change)))
    assert Reason.ledger in findings(report)
