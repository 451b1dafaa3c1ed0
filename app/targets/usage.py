"""What programs that run an artifact once share, whatever its target: the sizes and values that they feed."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.domain.architecture import InputSpec, Integers, Mask, Signature
from app.domain.report import ConversionReport

SHOWN_INPUTS = 50
"""Inputs up to which a program is made; with more it would no longer be read."""


@dataclass(frozen=True)
class Fed:
    """An input of a program: its shape at the sample's sizes, a value that it may hold, and its axes in words."""

    spec: InputSpec
    shape: tuple[int, ...]
    fill: int
    meaning: str


def fed_inputs(report: ConversionReport) -> tuple[Fed, ...]:
    """The inputs in order; none where no program of a readable length can feed them."""
    signature = report.signature
    if signature is None or len(signature.inputs) > SHOWN_INPUTS:
        return ()
    return tuple(Fed(spec, _sizes(signature, spec), _fill(spec), _meaning(spec)) for spec in signature.inputs)


def tuple_of(sizes: Sequence[int]) -> str:
    """Sizes as Python writes a tuple."""
    return f"({', '.join(map(str, sizes))}{',' if len(sizes) == 1 else ''})"


def _sizes(signature: Signature, spec: InputSpec) -> tuple[int, ...]:
    """The sample's shape."""
    return tuple(size if isinstance(size, int) else signature.axis(size).sample for size in spec.shape)


def _fill(spec: InputSpec) -> int:
    """A value that the input may hold: the lowest integer, ones of a mask, else zero."""
    match spec.distribution:
        case Integers(low=low):
            return low
        case Mask():
            return 1
    return 0


def _meaning(spec: InputSpec) -> str:
    """The axes as the signature names them."""
    return " × ".join(str(size) for size in spec.shape).replace("\n", " ")
