"""Probes: the input sets on which model and artifact are compared.

Three seeded draws from the signature's declared distributions, and for float inputs one at small scale (where an
epsilon outweighs a variance) and one at large scale with the sign of the first draw turned (so that a branch on the
sign of the data is walked both ways). Every symbolic axis takes three sizes over the three draws, and each axis another
size than its neighbours in the same draw, so that the draws are the dims certificate's first evidence as well
(verification.md, points 3 and 4).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from math import isqrt
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from app.architectures.sample import sample_inputs
from app.conversion.verification.npz import read_npz
from app.domain.architecture import Axis, Distribution, InputSpec, Integers, Mask, Normal, Signature, Uniform
from app.domain.errors import InvalidOptions

DRAWS = 3
MIXED = 4
"""Rows of a probe whose rows differ in kind."""
SMALL, LARGE = 2.0**-7, 8.0
"""Scales of the two scaled probes; powers of two, so that scaling itself rounds nothing."""
LARGE_PROBE = "large scale"
TRIED = 10_000
"""Divisors that are tried to tell a prime."""


@dataclass(frozen=True)
class Probe:
    """One input set: CPU tensors by input name, and the size that each symbolic axis has in it."""

    name: str
    sizes: dict[str, int]
    inputs: dict[str, Tensor]
    seed: int | None = None
    scaled: bool = False
    """Outside the declared distribution."""


def draw_probes(signature: Signature, seed: int) -> list[Probe]:
    """Probes of a full verification, in the order of the report."""
    probes = [draw_probe(signature, latin_sizes(signature, index), seed + index) for index in range(DRAWS)]
    if has_float_inputs(signature):
        sizes = latin_sizes(signature, 0)
        probes.append(draw_probe(signature, sizes, seed + DRAWS, scale=SMALL, name="small scale"))
        # The same seed and sizes as the first draw: the same values, times LARGE, signs turned where they may be.
        turned = draw_probe(signature, sizes, seed, scale=LARGE, name=LARGE_PROBE)
        probes.append(_turn_signs(turned, signature))
    return probes


def draw_certified_probe(signature: Signature, seed: int) -> Probe:
    """The one probe of a certified verification: each axis at its least or its exported size, drawn at random.

    That the graph holds at other sizes was proved with its template; a repeat job pays for every row three times.
    """
    generator = torch.Generator().manual_seed(seed)
    sizes = {axis.name: axis_sizes(axis)[int(torch.randint(2, (), generator=generator))] for axis in signature.axes}
    return draw_probe(signature, sizes, seed)


def draw_probe(
    signature: Signature, sizes: Mapping[str, int], seed: int, *, scale: float = 1.0, name: str | None = None
) -> Probe:
    """One seeded draw at these sizes."""
    generator = torch.Generator().manual_seed(seed)
    inputs = sample_inputs(signature, sizes, generator, scale=scale)
    return Probe(name or f"seed {seed}", dict(sizes), inputs, seed, scaled=scale != 1.0)


def draw_degenerate(signature: Signature, seed: int) -> list[Probe]:
    """Integer and mask inputs as random draws never hold them: rows of their lowest and of their highest value only.

    A row is what shares an index of the first axis. First all rows so, then, where there are two or more, a mixture
    with two equal rows at the end. Empty for a model without such inputs.
    """
    names = {s.name for s in signature.inputs if isinstance(s.distribution, Integers | Mask)}
    if not names:
        return []
    axis = signature.inputs[0].shape[0] if signature.inputs[0].shape else None
    sizes = sample_sizes(signature)
    if isinstance(axis, str):
        sizes[axis] = admissible(signature.axis(axis), max(sizes[axis], MIXED))
    drawn = draw_probe(signature, sizes, seed)
    ends = {spec.name: _ends(spec, drawn.inputs[spec.name]) for spec in signature.inputs if spec.name in names}
    mixed = {name: _mixed(value, *ends.get(name, (None, None))) for name, value in drawn.inputs.items()}
    return [
        replace(drawn, name="rows of the lowest value", inputs={**drawn.inputs, **{n: e[0] for n, e in ends.items()}}),
        replace(drawn, name="rows of the highest value", inputs={**drawn.inputs, **{n: e[1] for n, e in ends.items()}}),
        replace(drawn, name="rows of one value", inputs=mixed),
    ]


def draw_zeros(signature: Signature, seed: int) -> Probe | None:
    """Float inputs of zeros, as silence and padding are; None where none of the inputs may be 0."""
    drawn = draw_probe(signature, sample_sizes(signature), seed, name="zeros")
    zeros = {s.name: torch.zeros_like(drawn.inputs[s.name]) for s in signature.inputs if _may_be_zero(s.distribution)}
    return replace(drawn, inputs={**drawn.inputs, **zeros}, scaled=True) if zeros else None


def _may_be_zero(distribution: Distribution) -> bool:
    return isinstance(distribution, Normal) or (isinstance(distribution, Uniform) and distribution.low <= 0)


def _ends(spec: InputSpec, value: Tensor) -> tuple[Tensor, Tensor]:
    """The input with its lowest value everywhere, and with its highest; a mask has one 1 in each row at the least."""
    if isinstance(spec.distribution, Integers):
        return torch.full_like(value, spec.distribution.low), torch.full_like(value, spec.distribution.high)
    low = torch.zeros_like(value)
    low[..., :1] = 1
    return low, torch.ones_like(value)


def _mixed(value: Tensor, low: Tensor | None, high: Tensor | None) -> Tensor:
    value = value.clone()
    if value.dim() == 0 or value.shape[0] < 2:
        return value
    if low is not None and high is not None:
        value[0], value[1] = low[0], high[1]
    value[-1] = value[-2]
    return value


def has_float_inputs(signature: Signature) -> bool:
    """True if any input can be scaled."""
    return any(spec.dtype in ("float16", "bfloat16", "float32", "float64") for spec in signature.inputs)


def _turn_signs(probe: Probe, signature: Signature) -> Probe:
    symmetric = {s.name for s in signature.inputs if isinstance(s.distribution, Normal) and s.distribution.mean == 0}
    inputs = {
        name: -value if name in symmetric and value.is_floating_point() else value
        for name, value in probe.inputs.items()
    }
    return replace(probe, inputs=inputs)


# --- sizes ---------------------------------------------------------------------------------------------------------


def latin_sizes(signature: Signature, index: int) -> dict[str, int]:
    """Sizes of draw ``index``: axis number i takes its size number (index + i) mod 3, so no two axes move together."""
    return {axis.name: axis_sizes(axis)[(index + place) % DRAWS] for place, axis in enumerate(signature.axes)}


def sample_sizes(signature: Signature) -> dict[str, int]:
    """The sizes that the artifact was exported with."""
    return {axis.name: admissible(axis, axis.sample) for axis in signature.axes}


def axis_sizes(axis: Axis) -> tuple[int, int, int]:
    """Three sizes for an axis: the least, the exported one, and a prime (times ``multiple_of``) apart from both.

    The prime lies above the exported size where the axis admits it: code that cuts its input to the exported size is
    right at every smaller one. The sizes coincide where the axis admits fewer.
    """
    least, sample = admissible(axis, 1), admissible(axis, axis.sample)
    step = axis.multiple_of
    primes = (admissible(axis, prime * step) for prime in _primes_around(sample // step))
    other = next((size for size in primes if size not in (least, sample)), sample)
    return least, sample, other


def admissible(axis: Axis, size: int) -> int:
    """The admissible size nearest above ``size``, or the largest there is."""
    step = axis.multiple_of
    least = -(-max(axis.minimum, 1) // step) * step
    size = max(-(-size // step) * step, least)
    if axis.maximum is not None:
        size = min(size, max(axis.maximum // step * step, least))
    return size


def _primes_around(value: int) -> Iterator[int]:
    """The next prime above a value, then the two below it, nearest first: one of them is apart from any two sizes."""
    yield next(n for n in range(value + 1, 2 * value + 3) if _is_prime(n))
    yield from islice((n for n in range(value - 1, 1, -1) if _is_prime(n)), 2)


def _is_prime(value: int) -> bool:
    """Prime, as far as divisors below TRIED tell: of larger numbers, a factor is as good as none."""
    return value > 1 and all(value % divisor for divisor in range(2, min(isqrt(value), TRIED) + 1))


# --- the client's own ----------------------------------------------------------------------------------------------


def client_probes(path: Path | None, signature: Signature) -> list[Probe]:
    """Those that were sent, if any were. Raises as ``read_client_probes``."""
    return [] if path is None else read_client_probes(path, signature)


def read_client_probes(path: Path, signature: Signature) -> list[Probe]:
    """Probes from an npz file: arrays named like the inputs, or ``<probe>/<input>`` for several probes.

    Raises InvalidOptions when a name, dtype or shape does not fit the signature, and what read_npz does.
    """
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for key, array in read_npz(path).items():
        probe, _, name = key.rpartition("/")
        arrays.setdefault(probe, {})[name] = array
    return [_client_probe(name, inputs, signature) for name, inputs in sorted(arrays.items())]


def _client_probe(name: str, arrays: Mapping[str, np.ndarray], signature: Signature) -> Probe:
    expected = [spec.name for spec in signature.inputs]
    if sorted(arrays) != sorted(expected):
        raise InvalidOptions(f"client probe {name!r} has inputs {sorted(arrays)}, the model takes {expected}")
    sizes: dict[str, int] = {}
    inputs = {}
    for spec in signature.inputs:
        array = _widened(arrays[spec.name], spec)
        if str(array.dtype) != spec.dtype:
            raise InvalidOptions(f"client probe {name!r}: {spec.name} is {array.dtype}, the model takes {spec.dtype}")
        if len(array.shape) != len(spec.shape):
            raise InvalidOptions(f"client probe {name!r}: {spec.name} has shape {array.shape}, not {spec.shape}")
        for size, expected_size in zip(array.shape, spec.shape, strict=True):
            fixed = expected_size if isinstance(expected_size, int) else sizes.setdefault(expected_size, size)
            if fixed != size:
                raise InvalidOptions(f"client probe {name!r}: {spec.name} has shape {array.shape}, not {spec.shape}")
        inputs[spec.name] = torch.from_numpy(array.copy())
    return Probe(f"client {name}".strip(), sizes, inputs)


def _widened(array: np.ndarray, spec: InputSpec) -> np.ndarray:
    """Values of float16 as an input of more bits takes them, which holds each; others as they are."""
    return array.astype(spec.dtype) if array.dtype == np.float16 and spec.dtype in ("float32", "float64") else array
