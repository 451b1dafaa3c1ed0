"""The points of a verification that run model and artifact side by side; each adds to the evidence.

verify.py gives their order, docs/verification.md their reasons.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial

import torch

from app.conversion.decisions.search import find_decisions
from app.conversion.verification import dims, far_sides
from app.conversion.verification.determinism import artifact_repeats, model_repeats
from app.conversion.verification.eager_side import skipped_probe, unfit_at_scale
from app.conversion.verification.evidence import Evidence
from app.conversion.verification.export_branch import differing_operators
from app.conversion.verification.extremes import screen, stress
from app.conversion.verification.oracle import reference
from app.conversion.verification.parity import Comparison, compare
from app.conversion.verification.probes import (
    DRAWS,
    Probe,
    draw_degenerate,
    draw_probe,
    has_float_inputs,
    latin_sizes,
    sample_sizes,
)
from app.conversion.verification.reference import Exact, ModelFailed, Oracle, Reference, cheapest, smallest
from app.conversion.verification.sensitivity import (
    common_part,
    constants_beside,
    sensitivity,
    sensitivity_findings,
    still,
)
from app.conversion.verification.side_by_side import disagreement
from app.domain.reasons import finding_of
from app.domain.report import Finding, ProbeResult, Reason
from app.targets.artifact import ArtifactRefused

REDRAWS = 10
"""Draws until one differs from the first probe where both have values: a single token may well be the same again."""


def _differs(one: Probe, other: Probe) -> bool:
    pairs = (common_part(value, other.inputs[name]) for name, value in one.inputs.items())
    return any(not torch.equal(left, right) for left, right in pairs)


def load_artifact(evidence: Evidence, *, repack: bool) -> None:
    """Point 11: the artifact from its final bytes, in a session of its own; ``repack`` where it will run often."""
    subject = evidence.subject
    with evidence.clock.part("session"):
        try:
            evidence.runner = subject.reader.open(
                subject.artifact,
                subject.module,
                subject.signature,
                threads=evidence.threads,
                repack=repack,
            )
        except ArtifactRefused as refusal:
            evidence.findings.append(finding_of(Reason.runtime, f"the runtime refuses the artifact: {refusal}"))


def check_repeatable(evidence: Evidence) -> None:
    """Point 5: the same input twice."""
    subject = evidence.subject
    if evidence.runner is None or not evidence.references:
        return
    inputs = smallest(evidence.references).probe.inputs
    with evidence.clock.part("determinism"):
        if evidence.model_repeats is None:
            evidence.model_repeats = model_repeats(subject.module, subject.signature, inputs)
        evidence.artifact_repeats = artifact_repeats(evidence.runner, inputs)
    if not evidence.model_repeats:
        detail = "the model itself answers the same input differently each time, so nothing can be compared with it"
        evidence.findings.append(finding_of(Reason.nondeterministic, detail))
    elif not evidence.artifact_repeats:
        evidence.findings.append(finding_of(Reason.parity, "the artifact answers the same input differently each time"))


def check_parity(evidence: Evidence) -> None:
    """Point 2: every output of every probe inside its gate."""
    if evidence.runner is None:
        return
    subject = evidence.subject
    with evidence.clock.part("parity"):
        for taken in list(evidence.references):
            near = not taken.oracle.asked
            compared = compare(evidence.runner, taken)
            near = near and not taken.oracle.asked and compared.failure is None
            unfit = None if near else unfit_at_scale(subject, taken)
            if unfit is None:
                evidence.compared.append(compared)
            else:
                evidence.references.remove(taken)
                evidence.skipped.append(skipped_probe(taken.probe, unfit))
    evidence.findings += _failures(evidence.compared)


def _failures(compared: Iterable[Comparison]) -> list[Finding]:
    return [
        finding_of(comparison.failure, f"{_probe_words(comparison.result)}: {comparison.result.reason}")
        for comparison in compared
        if comparison.failure is not None
    ]


def _probe_words(result: ProbeResult) -> str:
    sizes = ", ".join(f"{axis} {size}" for axis, size in result.sizes.items())
    return f"{result.probe} at {sizes}" if sizes else result.probe


def check_extremes(evidence: Evidence) -> None:
    """Point 3: far outside the declared distribution, model and artifact still take the same way."""
    subject = evidence.subject
    if evidence.runner is None or not evidence.references or evidence.failed or not has_float_inputs(subject.signature):
        return
    if subject.coarseness > 1:
        evidence.not_run["extremes"] = "a file of less precision has less range too"
        return
    with evidence.clock.part("extremes"):
        screened = screen(subject, evidence.runner, cheapest(evidence.references))
    evidence.findings += _failures(screened.comparisons)
    if screened.left_out is not None:
        evidence.not_run["extremes"] = screened.left_out


def check_export_branch(evidence: Evidence) -> None:
    """Point 3: where the model takes another way while it is exported, both must agree on inputs of many scales."""
    subject = evidence.subject
    if evidence.runner is None or not evidence.references or evidence.failed or subject.reader.exporting is None:
        return
    taken = cheapest(evidence.references)
    with evidence.clock.part("export_branch"):
        if evidence.other_way is None:
            evidence.other_way = differing_operators(subject, taken)
        if not evidence.other_way:
            return
        stressed = stress(subject, evidence.runner, taken)
        failed = next((comparison.result for comparison in stressed if comparison.failure), None)
    listed = ", ".join(f"{name} × {count}" for name, count in evidence.other_way.most_common(5))
    detail = f"while it is exported, the model takes another way (operators that differ: {listed})"
    if failed is not None:
        evidence.findings.append(finding_of(Reason.parity, f"{detail}; {failed.probe}: {failed.reason}"))
    else:
        evidence.findings.append(
            finding_of(Reason.export_branch, f"{detail}; both agree on inputs of all scales tried")
        )


def check_dims(evidence: Evidence) -> None:
    """Point 4: every axis that was asked to be dynamic, read back and executed."""
    subject = evidence.subject
    if evidence.runner is None or not evidence.references:
        return
    runner = evidence.runner

    def trial(sizes: Mapping[str, int]) -> Comparison:
        probe = draw_probe(subject.signature, sizes, subject.seed)
        taken = reference(subject.module, subject.signature, probe, subject.coarseness)
        return compare(runner, taken)

    with evidence.clock.part("dims"):
        outcomes = dims.try_axes(subject.signature, evidence.compared, trial)
        evidence.dims = dims.certify(subject.signature, outcomes, evidence.facts.axes, subject.declared)
    evidence.findings += dims.dims_findings(evidence.dims, outcomes)


def check_degenerate(evidence: Evidence) -> None:
    """Point 3: rows of one value, which integer inputs admit and random draws never hold."""
    subject = evidence.subject
    if evidence.runner is None or not evidence.references or evidence.failed or evidence.model_repeats is False:
        return
    with evidence.clock.part("degenerate"):
        for probe in draw_degenerate(subject.signature, subject.seed):
            try:
                apart = disagreement(subject, evidence.runner, probe)
            except ModelFailed:
                continue
            if apart is not None:
                evidence.findings.append(finding_of(Reason.parity, f"{probe.name} at {probe.sizes}: {apart}"))


def check_decisions(evidence: Evidence) -> None:
    """Point 4: both sides of what the model's Python decides on sizes; what it decides on values is a doubt."""
    subject = evidence.subject
    if evidence.runner is None or not evidence.references or evidence.failed or evidence.model_repeats is False:
        return
    with evidence.clock.part("decisions"):
        find = evidence.find_decisions or partial(find_decisions, subject.module, subject.signature)
        decisions = find()
        evidence.decisions = far_sides.try_sides(subject, evidence.runner, decisions)
    if (left_out := far_sides.left_out(decisions)) is not None:
        evidence.not_run["decisions"] = left_out
    evidence.findings += far_sides.search_findings(decisions)
    evidence.findings += far_sides.size_findings(evidence.decisions, subject)
    evidence.findings += far_sides.value_findings(decisions, subject.kept)


def check_sensitivity(evidence: Evidence) -> None:
    """Point 7: the probes move the outputs.

    What is judged is the model, so where the probes that were drawn show nothing, others are, and the artifact, which
    answered the first as the model does, is run on them.
    """
    with evidence.clock.part("sensitivity"):
        references = list(evidence.references)
        measured = sensitivity(references) if len(references) > 1 else None
        others = _others(evidence) if references else iter(())
        while measured is None or still(measured):
            other = next(others, None)
            if other is None:
                break
            references.append(other)
            measured = sensitivity(references)
        if measured is None:
            return
        subject, evidence.sensitivity = evidence.subject, measured
        constant = constants_beside(subject.module, subject.signature, measured, references)
    evidence.findings += sensitivity_findings(measured, constant)


def _others(evidence: Evidence) -> Iterator[Reference]:
    """What the artifact makes of further draws: at the least sizes, then at those of the first draws and the exported.

    Their gates are the least there are; those of the probes that were judged count.
    """
    subject, first = evidence.subject, evidence.references[0]
    least = latin_sizes(subject.signature, 0)
    smaller = {axis: min(size, first.probe.sizes.get(axis, size)) for axis, size in least.items()}
    sizes = [smaller, sample_sizes(subject.signature), *(latin_sizes(subject.signature, i) for i in range(DRAWS))]
    for turn, at in enumerate(sizes):
        draws = (draw_probe(subject.signature, at, subject.seed + turn * REDRAWS + n) for n in range(1, REDRAWS))
        probe = next((probe for probe in draws if _differs(probe, first.probe)), None)
        if probe is None or evidence.runner is None or evidence.failed:
            continue
        try:
            outputs = dict(zip(first.y32, evidence.runner.run(probe.inputs).values(), strict=True))
        except (ArtifactRefused, ValueError):
            continue
        wide = {name: value.double() if value.is_floating_point() else value for name, value in outputs.items()}
        answer = Exact(wide, "fp64", first.trace)
        yield Reference(
            probe, outputs, first.trace, Oracle(None, answer), again=first.again, coarseness=first.coarseness
        )
