"""Artifact against reference on one probe: same outputs by name, shape and dtype, and every value inside its gate.

Integer and boolean outputs are exact, except the result of an arg-type operator (argmax, topk, sort ...) whose scores
tie within the gate: there eager itself decides by rounding (verification.md, point 2).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from app.conversion.verification.discontinuities import as_many_rows, settled
from app.conversion.verification.eager_gate import judged_by_eager
from app.conversion.verification.noise import with_noise
from app.conversion.verification.reference import Reference
from app.conversion.verification.tolerance import K, is_inexact, judge, rounding
from app.domain.reasons import finding_of
from app.domain.report import Finding, OutputParity, ProbeResult, Reason
from app.targets.artifact import ArtifactRefused, Runner

HOPELESS = 100.0
"""Times its gate beyond which no luck of eager explains an error."""


@dataclass(frozen=True)
class Comparison:
    """The result of one probe. ``failure`` says which kind of fault it is when it did not pass."""

    result: ProbeResult
    failure: Reason | None = None
    reference: Reference | None = None
    """What was compared with, where it is of use later."""


def compare(runner: Runner, reference: Reference) -> Comparison:
    """Run the artifact on the reference's probe and judge every output, by the oracle only where eager cannot tell."""
    try:
        outputs = named_outputs(runner, reference)
    except ArtifactRefused as refusal:
        return refused(reference, Reason.runtime, f"the runtime failed: {refusal}")
    near = None if reference.oracle.asked else compared_with_eager(outputs, reference)
    return near or compared_with_oracle(outputs, reference)


def named_outputs(runner: Runner, reference: Reference) -> dict[str, Tensor]:
    """What the artifact gives on the probe, by its own names or else the model's. Raises ArtifactRefused."""
    outputs = runner.run(reference.probe.inputs)
    if not runner.names_outputs and len(outputs) == len(reference.y32):
        outputs = dict(zip(reference.y32, outputs.values(), strict=True))
    return outputs


def compared_with_eager(outputs: dict[str, Tensor], reference: Reference) -> Comparison | None:
    """The comparison where every output lies so near to eager that the oracle need not be asked (eager_gate.py)."""
    if structure_mismatch(outputs, reference.y32) is not None:
        return None
    judged = []
    for name, value in outputs.items():
        near = judged_by_eager(name, value, reference)
        if near is None:
            return None
        judged.append(near)
    return Comparison(result_of(reference, tuple(judged), None), reference=reference)


def compared_with_oracle(outputs: dict[str, Tensor], reference: Reference) -> Comparison:
    """Judge outputs by the gate, and before one is called a fault, with all that luck and steps excuse."""
    compared = compare_outputs(outputs, reference)
    if compared.failure is Reason.output_structure and (other := as_many_rows(outputs, reference)) is not None:
        reference, compared = other, compare_outputs(outputs, other)
    if compared.failure is not Reason.parity:
        return compared
    sure = with_noise(reference) if compared.result.worst_ratio <= HOPELESS else reference
    return compare_outputs(settled(outputs, sure), sure)


def failures(compared: Iterable[Comparison]) -> list[Finding]:
    """What is to be said of those that did not pass."""
    return [
        finding_of(comparison.failure, f"{_probe_words(comparison.result)}: {comparison.result.reason}")
        for comparison in compared
        if comparison.failure is not None
    ]


def ties(compared: Iterable[Comparison]) -> list[Finding]:
    """What is to be said of outputs that differ only where scores tie."""
    judged = [(comparison.result, output) for comparison in compared for output in comparison.result.outputs]
    first = {output.output: (result, output) for result, output in reversed(judged) if output.tied}
    return [
        finding_of(
            Reason.tied_choices,
            f"{name}: {output.tied} of {int(output.scale)} indices are others than the model's, among scores that tie "
            f"within rounding ({_probe_words(result)})",
        )
        for name, (result, output) in sorted(first.items())
    ]


def _probe_words(result: ProbeResult) -> str:
    sizes = ", ".join(f"{axis} {size}" for axis, size in result.sizes.items())
    return f"{result.probe} at {sizes}" if sizes else result.probe


def compare_outputs(outputs: dict[str, Tensor], reference: Reference) -> Comparison:
    """Judge outputs that are at hand."""
    mismatch = structure_mismatch(outputs, reference.y32)
    if mismatch is not None:
        return refused(reference, Reason.output_structure, mismatch)
    judged = tuple(_judge(name, value, reference) for name, value in outputs.items())
    failed = [output for output in judged if not output.passed]
    reason = "; ".join(map(_words, failed)) or None
    return Comparison(result_of(reference, judged, reason), Reason.parity if failed else None, reference)


def _words(failed: OutputParity) -> str:
    where = f"{failed.output} ({failed.part})" if failed.part else failed.output
    return f"{where}: error {failed.error:.3g} against a gate of {failed.gate:.3g}"


def structure_mismatch(outputs: dict[str, Tensor], expected: dict[str, Tensor]) -> str | None:
    """What of the outputs' names, shapes and dtypes is not the model's, if anything."""
    if list(outputs) != list(expected):
        return f"the artifact's outputs are {list(outputs)}, the model's are {list(expected)}"
    for name, value in outputs.items():
        if value.shape != expected[name].shape:
            return f"{name} has shape {tuple(value.shape)}, the model gives {tuple(expected[name].shape)}"
        if value.dtype != expected[name].dtype:
            return f"{name} is {value.dtype}, the model gives {expected[name].dtype}"
    return None


def _judge(name: str, value: Tensor, reference: Reference) -> OutputParity:
    if is_inexact(value):
        return max(_judged_parts(name, value, reference), key=lambda judged: judged.ratio)
    expected = reference.y32[name]
    differing = value != expected
    wrong = int(differing.sum())
    tied = wrong if wrong and _ties(value, expected, differing, reference) else 0
    wrong -= tied
    return OutputParity(
        output=name,
        dtype=str(value.dtype).removeprefix("torch."),
        shape=tuple(value.shape),
        error=float(wrong),
        gate=0.0,
        ratio=float(wrong),
        scale=float(value.numel()),
        eager_error=0.0,
        passed=wrong == 0,
        tied=tied,
    )


def _judged_parts(name: str, value: Tensor, reference: Reference) -> Iterator[OutputParity]:
    """The output as a whole, and each part of it that is of another scale."""
    y64 = reference.y64[name]
    yield judge(name, value, reference.gate(name), y64)
    for part, gate in reference.small_parts(name):
        yield judge(name, part.of(value), gate, part.of(y64)).model_copy(
            update={"shape": tuple(value.shape), "part": str(part)}
        )


def _ties(value: Tensor, expected: Tensor, differing: Tensor, reference: Reference) -> bool:
    """True if the output is the result of an arg-type operator and every differing choice is a near-tie."""
    for indices, scores, dim in reference.oracle.answer.trace.choices:
        if indices.shape != expected.shape or not bool((indices == expected)[~differing].all()):
            continue
        chosen, best = _scores_at(scores, value, dim), _scores_at(scores, indices, dim)
        if chosen is not None and best is not None:
            chosen, best = chosen[differing], best[differing]
            relative = 2 * K * rounding(torch.float32, _depth(reference), reference.coarseness)
            width = relative * torch.maximum(chosen.abs(), best.abs())
            return bool(((chosen - best).abs() <= width).all() and torch.isfinite(width).all())
    return False


def _depth(reference: Reference) -> float:
    """How much the model's own rounding exceeds c·u·scale, seen on its float outputs; at least 1."""
    growth = [1.0]
    for name in reference.float_outputs:
        gate = reference.gate(name)
        if gate.scale > 0:
            growth.append(gate.eager_error / rounding(reference.y32[name].dtype, gate.scale))
    return max(growth)


def _scores_at(scores: Tensor, indices: Tensor, dim: int | None) -> Tensor | None:
    """The scores that the indices point at, in the indices' shape; None where an index lies outside."""
    axis = 0 if dim is None else dim
    table = scores.flatten() if dim is None else scores
    places = indices.flatten() if dim is None else indices
    size = table.shape[axis]
    if places.numel() == 0 or int(places.min()) < 0 or int(places.max()) >= size:
        return None
    dropped = places.dim() == table.dim() - 1
    found = table.gather(axis, (places.unsqueeze(axis) if dropped else places).long())
    return found.reshape(indices.shape)


def refused(reference: Reference, failure: Reason, reason: str) -> Comparison:
    """The artifact gave nothing that could be judged."""
    return Comparison(result_of(reference, (), reason), failure, reference)


def result_of(reference: Reference, outputs: tuple[OutputParity, ...], reason: str | None) -> ProbeResult:
    """What is reported of the reference's probe; it passed where there is no reason why not."""
    probe = reference.probe
    return ProbeResult(
        probe=probe.name, seed=probe.seed, sizes=probe.sizes, outputs=outputs, passed=reason is None, reason=reason
    )
