"""What an artifact is held against on one probe: the model's outputs in its own dtype and in float64, with gates."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from app.conversion.verification.gate import C, Gate, gate_of, unit_roundoff
from app.conversion.verification.probes import Probe
from app.conversion.verification.scales import Part, small_parts
from app.conversion.verification.widening import Trace

LUCK = 8.0
"""Times c · u · scale that a small part of an output may always be off: one number may have caused all its error."""

OracleKind = Literal["fp64", "fp32-reordered"]
NoiseOf = tuple[str, str]
"""An output, and a part of it in words; "" for the whole."""


class ModelFailed(Exception):
    """The eager module itself cannot run on a probe; its message is the module's."""


@dataclass(frozen=True)
class Reference:
    """What the model computes on a probe. ``y32`` in the model's own dtype, ``y64`` in float64, by output name."""

    probe: Probe
    y32: dict[str, Tensor]
    y64: dict[str, Tensor]
    kind: OracleKind
    trace: Trace
    detours: tuple[str, ...] = ()
    """Why an earlier way to the float64 values did not work."""
    noise: Mapping[NoiseOf, float] = field(default_factory=dict)
    """Errors of eager on inputs moved by their last bit, where they were looked at (noise.py)."""
    again: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = field(kw_only=True)
    """The model in its own dtype on other inputs. Raises ModelFailed."""

    def gate(self, output: str) -> Gate:
        """The gate of a float output on this probe."""
        return self._gate(output, self.y32[output], self.y64[output], self.noise.get((output, ""), 0.0))

    def small_parts(self, output: str) -> Iterator[tuple[Part, Gate]]:
        """Parts of a float output that are much smaller than the whole, each with its gate."""
        for part in self._parts(output):
            y64 = part.of(self.y64[output])
            luck = LUCK * C * unit_roundoff(self.y32[output].dtype) * float(y64.abs().max())
            noise = max(luck, self.noise.get((output, str(part)), 0.0))
            yield part, self._gate(output, part.of(self.y32[output]), y64, noise)

    def errors(self, outputs: Mapping[str, Tensor]) -> Iterator[tuple[NoiseOf, float]]:
        """How far the model's outputs in another evaluation lie from the oracle, by output and small part."""
        for name in self.float_outputs:
            if outputs[name].shape == self.y64[name].shape:
                yield (name, ""), self._gate(name, outputs[name], self.y64[name]).eager_error
                for part in self._parts(name):
                    gate = self._gate(name, part.of(outputs[name]), part.of(self.y64[name]))
                    yield (name, str(part)), gate.eager_error

    def _parts(self, output: str) -> Iterable[Part]:
        """Outside the declared distribution there are none.

        Where the model amplifies rounding, a part may be off by more than eager shows.
        """
        return small_parts(self.y64[output]) if not self.probe.scaled else ()

    def _gate(self, output: str, y32: Tensor, y64: Tensor, noise: float = 0.0) -> Gate:
        unit = 1.0 if output in self.trace.sigmoids else 0.0
        return gate_of(y32, y64, noise=noise, unit=unit, jumps=self.trace.steps)

    @property
    def float_outputs(self) -> tuple[str, ...]:
        return tuple(name for name, value in self.y32.items() if is_inexact(value))

    @property
    def finite(self) -> bool:
        return all(bool(torch.isfinite(self.y32[name]).all()) for name in self.float_outputs)


def is_inexact(value: Tensor) -> bool:
    """True for float and complex tensors, which are compared within a gate; others are compared exactly."""
    return value.is_floating_point() or value.is_complex()


def cheapest(references: Sequence[Reference]) -> Reference:
    """The reference of the fewest operations."""
    return min(references, key=lambda taken: taken.trace.operations)


def smallest(references: Sequence[Reference]) -> Reference:
    """The reference of the fewest input elements."""
    return min(references, key=lambda taken: sum(value.numel() for value in taken.probe.inputs.values()))
