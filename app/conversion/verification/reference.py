"""What an artifact is held against on one probe: the model's outputs in its own dtype and in float64, with gates."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from app.conversion.verification.probes import Probe
from app.conversion.verification.promotion import Trace
from app.conversion.verification.tolerance import Gate, Part, gate_of, is_inexact, magnitude, rounding, small_parts

LUCK = 8.0
"""Times c · u · scale that a small part of an output may always be off: one number may have caused all its error."""

OracleKind = Literal["fp64", "fp32-reordered"]
NoiseOf = tuple[str, str]
"""An output, and a part of it in words; "" for the whole."""


class ModelFailed(Exception):
    """The eager module itself cannot run on a probe; its message is the module's."""


@dataclass(frozen=True)
class Exact:
    """The oracle's answer on a probe: the model's outputs in float64, by output name.

    ``eager`` is what the gate takes for the model in its own dtype, where that is another evaluation than the first.
    """

    y64: dict[str, Tensor]
    kind: OracleKind
    trace: Trace
    """What the float64 forward did; empty where it could not be followed."""
    detours: tuple[str, ...] = ()
    """Why an earlier way to the float64 values did not work."""
    noise: Mapping[NoiseOf, float] = field(default_factory=dict)
    """Errors of eager on inputs moved by their last bit, where one evaluation is too little to tell (noise.py)."""
    eager: dict[str, Tensor] | None = None


class Oracle:
    """Answers when it is first asked, once: a float64 forward costs more than all else that is done with a probe."""

    def __init__(self, ask: Callable[[], Exact] | None, answer: Exact | None = None) -> None:
        self._ask, self._answer = ask, answer

    @property
    def asked(self) -> bool:
        """Whether the answer is at hand."""
        return self._answer is not None

    @property
    def answer(self) -> Exact:
        return self.ask()

    def ask(self) -> Exact:
        """The answer, made now if it is not at hand. The module must hold its own weights."""
        if self._answer is None:
            assert self._ask is not None
            self._answer = self._ask()
        return self._answer

    def __getstate__(self) -> dict[str, Any]:
        """The answer alone: the model does not travel to another process."""
        return {"_ask": None, "_answer": self._answer}


@dataclass(frozen=True)
class Reference:
    """What the model computes on a probe: ``y32`` in its own dtype, and in float64 when the oracle is asked."""

    probe: Probe
    y32: dict[str, Tensor]
    trace: Trace
    """What the forward in the model's own dtype did; empty where it could not be followed."""
    oracle: Oracle
    noise: Mapping[NoiseOf, float] | None = None
    """Errors of eager that were measured otherwise; None: the oracle's, and those that the peers tell."""
    peers: tuple["Reference", ...] = ()
    """References of other draws, from whose errors those of outputs with few elements are told."""
    coarseness: float = field(default=1.0, kw_only=True)
    """Times the unit roundoff of the model's dtype with which the artifact was asked to compute."""
    seconds: float = field(default=0.0, kw_only=True)
    """Of processor time, of the forward in the model's own dtype."""
    again: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = field(kw_only=True)
    """The model in its own dtype on other inputs. Raises ModelFailed."""
    _gates: dict[str, Gate] = field(init=False, default_factory=dict, repr=False, compare=False)
    """Those that were asked for: every check asks, and what they follow from does not change."""

    @property
    def y64(self) -> dict[str, Tensor]:
        return self.oracle.answer.y64

    @property
    def kind(self) -> OracleKind:
        return self.oracle.answer.kind

    def gate(self, output: str) -> Gate:
        """The gate of a float output on this probe."""
        if output not in self._gates:
            noise = self.measured_noise((output, ""))
            self._gates[output] = self._gate(output, self._eager(output), self.y64[output], noise)
        return self._gates[output].widened(self.coarseness)

    def small_parts(self, output: str) -> Iterator[tuple[Part, Gate]]:
        """Parts of a float output that are much smaller than the whole, each with its gate."""
        for part in self._parts(output):
            y64 = part.of(self.y64[output])
            luck = LUCK * rounding(self.y32[output].dtype, magnitude(y64))
            noise = max(luck, self.measured_noise((output, str(part))))
            yield part, self._gate(output, part.of(self._eager(output)), y64, noise).widened(self.coarseness)

    def errors(self, outputs: Mapping[str, Tensor]) -> Iterator[tuple[NoiseOf, float]]:
        """How far the model's outputs in another evaluation lie from the oracle, by output and small part."""
        for name in self.float_outputs:
            if outputs[name].shape == self.y64[name].shape:
                yield (name, ""), self._gate(name, outputs[name], self.y64[name]).eager_error
                for part in self._parts(name):
                    gate = self._gate(name, part.of(outputs[name]), part.of(self.y64[name]))
                    yield (name, str(part)), gate.eager_error

    def measured_noise(self, of: NoiseOf) -> float:
        """An error of eager beside that of its one evaluation; 0 where none was measured."""
        if self.noise is not None:
            return self.noise.get(of, 0.0)
        own = self.oracle.answer.noise
        if of not in own or not self.peers:
            return own.get(of, 0.0)
        scale = self._scale(of[0])
        return scale * max((peer.relative_noise(of) for peer in self.peers), default=0.0)

    def relative_noise(self, of: NoiseOf) -> float:
        """The error of eager on this probe alone, by the output's scale; 0 for an output that is 0."""
        gate = replace(self, peers=()).gate(of[0])
        return gate.eager_error / gate.scale if gate.scale > 0 else 0.0

    def _scale(self, output: str) -> float:
        return gate_of(self._eager(output), self.y64[output]).scale

    def _eager(self, output: str) -> Tensor:
        return (self.oracle.answer.eager or self.y32)[output]

    def _parts(self, output: str) -> Iterable[Part]:
        """Outside the declared distribution there are none.

        Where the model amplifies rounding, a part may be off by more than eager shows.
        """
        return small_parts(self.y64[output]) if not self.probe.scaled else ()

    def _gate(self, output: str, y32: Tensor, y64: Tensor, noise: float = 0.0) -> Gate:
        trace = self.oracle.answer.trace
        unit = 1.0 if output in trace.sigmoids else 0.0
        return gate_of(y32, y64, noise=noise, unit=unit, jumps=trace.steps)

    @property
    def float_outputs(self) -> tuple[str, ...]:
        return tuple(name for name, value in self.y32.items() if is_inexact(value))

    @property
    def finite(self) -> bool:
        return all(bool(torch.isfinite(self.y32[name]).all()) for name in self.float_outputs)


def cheapest(references: Sequence[Reference]) -> Reference:
    """The reference of the fewest operations."""
    return min(references, key=lambda taken: taken.trace.operations)


def smallest(references: Sequence[Reference]) -> Reference:
    """The reference of the fewest input elements."""
    return min(references, key=lambda taken: sum(value.numel() for value in taken.probe.inputs.values()))
