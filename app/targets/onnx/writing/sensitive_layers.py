"""Which layers of a graph bear 8 bits: all are tried first, then the ones that lose most stay in float32.

One session holds every layer both ways, with a switch for each, so that a layer alone in 8 bits costs one run. What is
found here is a proposal: whether the artifact is within its budget, verification measures on probes of its own.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from app.domain.errors import ExportFailed
from app.domain.report import Quantization, QuantizedLayer
from app.targets.onnx.spec import OnnxOptions
from app.targets.onnx.writing.calibration import fed, measured_ranges, temporary_session
from app.targets.onnx.writing.int8 import SWITCH, Layer, in_int8, layers_of
from app.targets.onnx.writing.template import OnnxTemplate
from app.targets.request import ExportRequest

MARGINS = (1.0, 3.0, 6.0, 10.0)
"""dB by which a further try shall be better than the budget on the sample."""

Noise = NDArray[np.float64]
"""Of each float output: its sum of squares against what the float32 graph gives, by the latter's own."""


def quantisations(
    template: OnnxTemplate, tensors: Mapping[str, Tensor], request: ExportRequest, directory: Path
) -> Iterator[tuple[OnnxTemplate, Quantization]]:
    """All layers in 8 bits, then with ever more of the worst in float32, down to one.

    Raises ExportFailed for a graph that holds no layer of the kinds that are rewritten.
    """
    options = cast(OnnxOptions, request.options)
    budget = options.tolerance
    layers = layers_of(template)
    if not layers or budget is None:
        raise ExportFailed(
            "precision int8 finds no layer in this graph that it could compute in 8 bits.",
            stage="export",
            hint="It knows MatMul, Gemm, Conv and Gather whose weights are read once.",
        )
    ranges, calibration = None, None
    if options.activations == "static":
        ranges, calibration = measured_ranges(template, layers, tensors, request, directory)
    told = partial(_told, layers, calibration)
    yield in_int8(template, layers, ranges=ranges), told(layers)
    alone, together = _measured(in_int8(template, layers, ranges=ranges, switches=True), tensors, request, directory)
    tried = {len(layers)}
    for margin in MARGINS:
        kept = _within(alone, together, 10 ** (-(budget.snr_db + margin) / 10))
        chosen = [layer for number, layer in enumerate(layers) if number in kept]
        if chosen and len(chosen) not in tried:
            tried.add(len(chosen))
            yield in_int8(template, chosen, ranges=ranges), told(chosen, alone)
    if tried == {len(layers)}:  # the one that loses least, so that what each loses is told where even that is too much
        quietest = [min(zip(layers, alone, strict=True), key=lambda pair: float(pair[1].max(initial=0.0)))[0]]
        yield in_int8(template, quietest, ranges=ranges), told(quietest, alone)


def _within(alone: Sequence[Noise], together: Noise, admitted: float) -> set[int]:
    """Numbers of the layers to take: without the worst ones, until what the others lose together is admitted.

    Noises add up nearly; how nearly, ``together`` says, which is that of all layers at once.
    """
    kept = set(range(len(alone)))
    total = np.sum(alone, axis=0)
    factor = np.maximum(1.0, np.divide(together, total, out=np.ones_like(total), where=total > 0))
    for number in sorted(kept, key=lambda number: float(alone[number].max(initial=0.0)), reverse=True):
        if bool((factor * np.sum([alone[k] for k in kept], axis=0) <= admitted).all()):
            break
        kept.discard(number)
    return kept


def _measured(
    switched: OnnxTemplate, tensors: Mapping[str, Tensor], request: ExportRequest, directory: Path
) -> tuple[list[Noise], Noise]:
    """The noise of each layer alone in 8 bits on the sample, and of all together."""
    session = temporary_session(switched, tensors, directory)
    names = [node.name for node in session.get_inputs() if node.name.startswith(SWITCH)]
    feed = fed(session, request.sample)

    def outputs(on: Collection[str]) -> list[NDArray[np.float64]]:
        given = session.run(None, {**feed, **{name: np.array(name in on) for name in names}})
        return [value.astype(np.float64) for value in given if value.dtype.kind == "f"]

    exact = outputs(())
    return [_noise(outputs((name,)), exact) for name in names], _noise(outputs(names), exact)


def _noise(given: Sequence[NDArray[np.float64]], exact: Sequence[NDArray[np.float64]]) -> Noise:
    return np.array([_relative(one, other) for one, other in zip(given, exact, strict=True)])


def _relative(given: NDArray[np.float64], exact: NDArray[np.float64]) -> float:
    if given.shape != exact.shape:  # as many rows as the values decide
        return 1.0
    power = float(np.square(exact).sum())
    noise = float(np.square(given - exact).sum())
    return noise / power if power > 0 else float(noise > 0)


def _told(
    layers: Sequence[Layer], calibration: str | None, chosen: Sequence[Layer], alone: Sequence[Noise] | None = None
) -> Quantization:
    noises: Sequence[Noise | None] = alone or [None] * len(layers)
    return Quantization(
        activations="dynamic" if calibration is None else "static",
        calibration=calibration,
        layers=tuple(
            QuantizedLayer(
                layer=layer.name,
                operator=layer.operator,
                precision="int8" if layer in chosen else "fp32",
                snr_db=None if noise is None else _decibels(noise),
            )
            for layer, noise in zip(layers, noises, strict=True)
        ),
    )


def _decibels(noise: Noise) -> float | None:
    worst = float(noise.max(initial=0.0))
    return -10 * math.log10(worst) if worst > 0 else None
