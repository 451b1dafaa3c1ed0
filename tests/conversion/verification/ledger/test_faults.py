"""Faults put into real artifacts of every exporter: none may pass, and no faithful artifact fail."""

import itertools
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from app.domain.report import Ledger
from tests.conversion.verification.ledger.cases import NETWORKS, WAYS, Exports, build

pytestmark = pytest.mark.slow

Exported = Callable[[str], Exports]
Edit = tuple[str, dict[str, np.ndarray]]
"""What was done, and new values by stored tensor."""


def edits(values: dict[str, np.ndarray], rng: np.random.Generator) -> Iterator[Edit]:
    """Faults of every kind on the carrying tensors of one artifact: a tensor of each kind where there is one."""
    names = [name for name, value in values.items() if value.size > 1]
    for name in _some(names, rng):
        yield f"+10 % of one element of {name}", {name: _one_element(values[name], rng)}
    for name in _some(names, rng):
        older = values[name] * (1 + 1e-3 * rng.standard_normal(values[name].shape))
        yield f"older {name}", {name: older.astype(values[name].dtype)}
    pairs = [(a, b) for a, b in itertools.combinations(names, 2) if values[a].shape == values[b].shape]
    for a, b in _some(pairs, rng):
        yield f"{a} and {b} swapped", {a: values[b], b: values[a]}
    for name in _some(names, rng) + _some([name for name in names if values[name].ndim == 1], rng):
        yield f"{name} zeroed", {name: np.zeros_like(values[name])}
    for name in _some(names, rng):
        yield f"{name} rounded to float16", {name: values[name].astype(np.float16).astype(values[name].dtype)}
    for name in _some(names, rng):
        rounded = torch.from_numpy(values[name].copy()).bfloat16().float().numpy()
        yield f"{name} rounded to bfloat16", {name: rounded}
    for name in _some([name for name in names if values[name].shape[0] > 1], rng):
        rows = values[name].copy()
        rows[[0, -1]] = rows[[-1, 0]]
        yield f"first and last row of {name} exchanged", {name: rows}
    squares = [name for name in names if values[name].ndim == 2 and len(set(values[name].shape)) == 1]
    for name in _some(squares, rng):
        yield f"{name} transposed in place", {name: np.ascontiguousarray(values[name].T)}


def _some(items: list, rng: np.random.Generator) -> list:
    return [items[place] for place in rng.permutation(len(items))[:1]]


def _one_element(value: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    changed = value.copy().reshape(-1)
    place = rng.choice(np.flatnonzero(changed))
    changed[place] *= 1.1
    return changed.reshape(value.shape)


def carrying(ledger: Ledger) -> set[str]:
    return {entry.name for entry in ledger.initializers if entry.origin in ("tensor", "fold")}


def onnx_values(path: Path, names: set[str]) -> dict[str, np.ndarray]:
    graph = onnx.load(path).graph
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name in names}
    return {name: value for name, value in found.items() if value.dtype == np.float32}


def write_onnx(path: Path, values: dict[str, np.ndarray], target: Path) -> Path:
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(values[tensor.name], tensor.name))
    onnx.save(model, target)
    return target


def record_values(path: Path) -> dict[str, np.ndarray]:
    """Storages of the archive as float32, by record; records of other types are left out by what they hold."""
    with zipfile.ZipFile(path) as archive:
        records = [name for name in archive.namelist() if name.split("/")[1] in ("data", "constants")]
        return {
            name: np.frombuffer(archive.read(name), np.float32).copy() for name in records if not name.endswith(".pkl")
        }


def write_torchscript(path: Path, values: dict[str, np.ndarray], target: Path) -> Path:
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as copy:
        for record in source.infolist():
            data = values[record.filename].tobytes() if record.filename in values else source.read(record)
            copy.writestr(record.filename, data, zipfile.ZIP_STORED)
    return target


def _is_weight(value: np.ndarray) -> bool:
    """Bit patterns of int64 counters and indices read as float32 are zeros and denormals."""
    return value.size > 1 and bool((np.abs(value) > 1e-6).mean() > 0.5) and not np.array_equal(value, value[:1])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("network", NETWORKS)
def test_a_faithful_artifact_passes_and_every_faulty_one_fails(
    network: str, way: str, exported: Exported, tmp_path: Path
) -> None:
    exports = exported(network)
    path = exports.made[way].path
    faithful = exports.ledger(way, network)
    assert faithful.problems == ()
    if path.suffix == ".onnx":
        write, values = write_onnx, onnx_values(path, carrying(faithful))
    else:
        write, values = write_torchscript, {n: value for n, value in record_values(path).items() if _is_weight(value)}
    missed, tried = [], 0
    for fault, changes in edits(values, np.random.default_rng(list(f"{network} {way}".encode()))):
        faulty = write(path, changes, tmp_path / f"faulty{path.suffix}")
        tried += 1
        if exports.ledger(way, network, path=faulty).passed:
            missed.append(fault)
    assert missed == []
    assert tried >= 6


@pytest.mark.parametrize("way", WAYS)
def test_an_artifact_of_older_statistics_fails(way: str, exported: Exported) -> None:
    exports = exported("convolutions")
    for name in ("stem.1", "depthwise.1", "twin.1", "up.1"):
        module = build("convolutions")
        with torch.no_grad():
            module.get_submodule(name).running_mean.add_(0.3)
        ledger = exports.ledger(way, "convolutions", module=module)
        assert any(name in problem for problem in ledger.problems)
