"""Work that the first export of every process does, done once in the process that children are forked from."""

import torch
import tqdm  # type: ignore[import-untyped]
from torch import nn

from app.targets.capturing.quiet import collected
from app.targets.onnx.writing import operator_library
from app.targets.onnx.writing.opset import EXPORT_MINIMUM


class _Smallest(nn.Module):
    """One layer of each kind that every vision model has, so that their decompositions are looked up."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)
        self.norm = nn.BatchNorm2d(1)
        self.head = nn.Linear(1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))
        return y


def warm_exporters() -> None:
    """Import what torch.export imports late, and fill its caches and those of the ONNX operator library.

    A process forked afterwards exports as fast as one that has exported before. Costs 1-2 s of CPU. Starts no threads:
    tqdm, with which torch.export shows progress, would start one that watches its bars.
    """
    tqdm.tqdm.monitor_interval = 0
    operator_library.read_once()
    with collected(), torch.random.fork_rng(devices=[]):
        torch.onnx.export(
            _Smallest().eval(),
            (torch.zeros(2, 1, 2, 2),),
            dynamo=True,
            dynamic_shapes={"x": {0: "batch"}},
            opset_version=EXPORT_MINIMUM,
            optimize=False,
            verbose=False,
        )
