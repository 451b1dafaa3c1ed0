"""The dims certificate: every axis asked to be dynamic is read back from the file and executed at three sizes.

A name in the file proves nothing (an exporter can write "batch" over a loop unrolled for 2), and a size that happens to
run proves nothing about a declared one; so both are looked at (verification.md, point 4).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from app.conversion.verification.accuracy_budget import held_to
from app.conversion.verification.case import Case
from app.conversion.verification.check import check, loaded, referenced
from app.conversion.verification.comparison import Comparison, compare
from app.conversion.verification.oracle import reference
from app.conversion.verification.probes import axis_sizes, draw_probe, sample_sizes
from app.conversion.verification.reference import ModelFailed
from app.domain.architecture import Axis, Signature
from app.domain.reasons import finding_of
from app.domain.report import AxisCertificate, AxisTrial, Finding, Reason

Trial = Callable[[Mapping[str, int]], Comparison]
"""Draw a probe at these sizes and compare. Raises ModelFailed when the model itself cannot run at them."""

MODEL_FAILS = "the model itself fails at this size"


@dataclass(frozen=True)
class AxisOutcome:
    """What execution told of one axis, before it is written down for each input that has it."""

    axis: Axis
    trials: tuple[AxisTrial, ...]

    @property
    def executed(self) -> tuple[AxisTrial, ...]:
        """Trials in which the model itself ran."""
        return tuple(t for t in self.trials if not (t.reason or "").startswith(MODEL_FAILS))

    @property
    def specialised(self) -> bool:
        """The artifact is right at the exported size and wrong at another: the axis does not vary."""
        passed = [trial.passed for trial in self.executed]
        return any(passed) and not all(passed)


def try_axes(signature: Signature, compared: Iterable[Comparison], trial: Trial) -> list[AxisOutcome]:
    """Each axis at each of its sizes: from a probe that passed at that size, else alone, all others as exported."""
    results = [comparison.result for comparison in compared]
    outcomes = []
    for axis in signature.axes:
        trials = []
        for size in dict.fromkeys(axis_sizes(axis)):
            passed = [r for r in results if r.passed and r.sizes.get(axis.name) == size]
            if passed:
                trials.append(AxisTrial(size=size, passed=True, worst_ratio=max(r.worst_ratio for r in passed)))
            else:
                trials.append(_alone(signature, axis, size, trial))
        outcomes.append(AxisOutcome(axis, tuple(trials)))
    return outcomes


def _alone(signature: Signature, axis: Axis, size: int, trial: Trial) -> AxisTrial:
    try:
        result = trial({**sample_sizes(signature), axis.name: size}).result
    except ModelFailed as failed:
        return AxisTrial(size=size, passed=False, reason=f"{MODEL_FAILS}: {failed}")
    ratio = result.worst_ratio if result.outputs else None
    return AxisTrial(size=size, passed=result.passed, worst_ratio=ratio, reason=result.reason)


def certify(
    signature: Signature,
    outcomes: Sequence[AxisOutcome],
    written: Mapping[str, Sequence[int | str]] | None,
    declared: Signature | None,
) -> tuple[AxisCertificate, ...]:
    """One certificate for each axis of each input.

    ``written`` are the shapes read back from the file, None for a format that has none (TorchScript: then execution
    alone decides). ``declared``: axes that the architecture declares dynamic and the options made static.
    """
    by_name = {outcome.axis.name: outcome for outcome in outcomes}
    certificates = []
    for spec in signature.inputs:
        for position, size in enumerate(spec.shape):
            if isinstance(size, str):
                shape = None if written is None else written.get(spec.name)
                certificates.append(_asked_dynamic(spec.name, position, by_name[size], shape))
            else:
                name = _declared_axis(declared, spec.name, position)
                if name is not None:
                    certificates.append(_asked_static(spec.name, position, name))
    return tuple(certificates)


def _asked_dynamic(
    name: str, position: int, outcome: AxisOutcome, shape: Sequence[int | str] | None
) -> AxisCertificate:
    symbolic = shape is None or (position < len(shape) and isinstance(shape[position], str))
    dynamic = symbolic and not outcome.specialised
    return AxisCertificate(
        input=name,
        position=position,
        axis=outcome.axis.name,
        asked="dynamic",
        delivered="dynamic" if dynamic else "static",
        trials=outcome.trials,
        passed=dynamic,
    )


def _asked_static(name: str, position: int, axis: str) -> AxisCertificate:
    return AxisCertificate(
        input=name, position=position, axis=axis, asked="static", delivered="static", trials=(), passed=True
    )


def _declared_axis(declared: Signature | None, name: str, position: int) -> str | None:
    for spec in declared.inputs if declared else ():
        if spec.name == name and position < len(spec.shape):
            size = spec.shape[position]
            return size if isinstance(size, str) else None
    return None


def dims_findings(certificates: Iterable[AxisCertificate], outcomes: Iterable[AxisOutcome]) -> list[Finding]:
    """What the certificates mean for the verdict."""
    findings = []
    for certificate in certificates:
        place = f"axis {certificate.position} ({certificate.axis}) of {certificate.input}"
        if not certificate.passed:
            failed = next((t for t in certificate.trials if not t.passed), None)
            why = (
                f"the artifact does not hold at size {failed.size}: {failed.reason}"
                if failed
                else "the file fixes its size"
            )
            findings.append(finding_of(Reason.dims, f"{place} was asked to be dynamic, and {why}"))
        elif certificate.asked == "static":
            findings.append(finding_of(Reason.static_axis, f"{place} is static, as asked"))
    for outcome in outcomes:
        if len(outcome.trials) > 1 and len(outcome.executed) < 2:
            detail = f"the model runs at fewer than two sizes of axis {outcome.axis.name}, so whether it varies is open"
            findings.append(finding_of(Reason.shape_specialised, detail))
    return findings


@check(loaded, referenced)
def dims(case: Case) -> None:
    """Point 4: every axis that was asked to be dynamic, read back and executed."""
    subject, budget = case.subject, case.subject.tolerance

    def trial(sizes: Mapping[str, int]) -> Comparison:
        probe = draw_probe(subject.signature, sizes, subject.seed)
        taken = reference(subject, probe, subject.coarseness)
        return compare(case.artifact, taken) if budget is None else held_to(budget, case.artifact, taken)

    outcomes = try_axes(subject.signature, case.compared, trial)
    case.dims = certify(subject.signature, outcomes, case.facts.axes, subject.declared)
    case.findings += dims_findings(case.dims, outcomes)
