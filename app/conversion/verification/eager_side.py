"""What a verification needs of the model alone: references on the probes, and for a full one the negative control.

No artifact takes part, so it is the same on every rung of a ladder, and can be made while an exporter is at work.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from app.architectures.module_state import ModuleState
from app.conversion.verification.case import EagerSide, Pace
from app.conversion.verification.checks.detection import detection_of
from app.conversion.verification.checks.determinism import model_repeats
from app.conversion.verification.checks.export_branch import other_way
from app.conversion.verification.conditioning import amplifies_rounding
from app.conversion.verification.deterministic_mode import deterministic_mode
from app.conversion.verification.forward_cost import LEAST_BYTES, allowed
from app.conversion.verification.fused_attention import fused_departure
from app.conversion.verification.noise import pooled
from app.conversion.verification.oracle import eager_once_more, reference
from app.conversion.verification.probes import (
    Probe,
    client_probes,
    draw_certified_probe,
    draw_probe,
    draw_probes,
    sample_sizes,
)
from app.conversion.verification.reference import ModelFailed, Reference, cheapest, smallest
from app.conversion.verification.stopwatch import Stopwatch
from app.conversion.verification.subject import Model
from app.domain.architecture import Integers, Signature
from app.domain.errors import InvalidOptions, memory_ran_out
from app.domain.reasons import finding_of
from app.domain.report import Finding, ProbeResult, Reason
from app.domain.text import message_of
from app.processes import memory_ceiling

log = logging.getLogger(__name__)


def full_probes(model: Model) -> list[Probe]:
    """The draws of a full verification, then the client's own. Raises InvalidOptions for probes that do not fit."""
    drawn = draw_probes(model.signature, model.seed)
    if model.coarseness > 1 or model.tolerance is not None:  # fewer bits have less range, and overflow beyond it
        drawn = [probe for probe in drawn if not probe.scaled]
    return [*drawn, *client_probes(model.client_probes, model.signature)]


def certified_probes(model: Model) -> list[Probe]:
    """The one draw of a certified verification, then the client's own. Raises InvalidOptions likewise."""
    return [draw_certified_probe(model.signature, model.seed), *client_probes(model.client_probes, model.signature)]


def refuse_unfit_probes(model: Model) -> None:
    """Raise InvalidOptions for a client's probe on which the model does not run, though it does on its own sample."""
    for probe in client_probes(model.client_probes, model.signature):
        failed = _failing(model, probe)
        if (
            failed is not None
            and _failing(model, draw_probe(model.signature, sample_sizes(model.signature), 0)) is None
        ):
            raise InvalidOptions(_refused_by_the_model(model.signature, probe, failed))


def _failing(model: Model, probe: Probe) -> ModelFailed | None:
    try:
        eager_once_more(model, probe.inputs)
    except ModelFailed as failed:
        return failed
    return None


def full_eager_side(model: Model, pace: Pace, *, ahead: bool = False) -> EagerSide:
    """Points 1, 3, 5 and 8 of a full verification, in deterministic mode. Raises InvalidOptions for unfit probes.

    ``ahead``: the oracle is asked for every probe while nobody waits, so that nobody has to later.
    """
    as_loaded = ModuleState(model.module)
    with deterministic_mode(model.threads):
        side = take_references(model, full_probes(model), pace)
        side = _looked_at_closer(model, side, as_loaded, pace) if side.references else side
        return _asked_ahead(model, side, pace) if ahead else side


def _asked_ahead(model: Model, side: EagerSide, pace: Pace) -> EagerSide:
    clock, fit, skipped = Stopwatch(), [], list(side.skipped)
    with clock.part("oracle"):
        for taken in side.references:
            if pace():
                fit.append(taken)
                continue
            taken.oracle.ask()
            unfit = unfit_at_scale(model, taken)
            if unfit is None:
                fit.append(taken)
            else:
                skipped.append(skipped_probe(taken.probe, unfit))
    return replace(side, references=fit, skipped=skipped, seconds={**side.seconds, **clock.seconds})


def _looked_at_closer(model: Model, side: EagerSide, as_loaded: ModuleState, pace: Pace) -> EagerSide:
    """With points 3, 5 and 8. A check that raises is left to the verification, whose failure it is."""
    references, clock, not_run = side.references, Stopwatch(), dict(side.not_run)
    repeats = way = found = None
    with clock.part("determinism"), _logged("determinism"):
        repeats = model_repeats(model, smallest(references), as_loaded)
    if model.reader.exporting is not None:
        pace()
        with clock.part("export_branch"), _logged("export_branch"):
            way = other_way(model, cheapest(references))
    with clock.part("detection"), _logged("detection", not_run):
        found = detection_of(model, references, model.seed, pace)
    seconds = {**side.seconds, **clock.seconds}
    return replace(side, repeats=repeats, other_way=way, detection=found, seconds=seconds, not_run=not_run)


@contextmanager
def _logged(part: str, not_run: dict[str, str] | None = None) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if memory_ran_out(error):
            raise
        log.exception("%s could not be carried out", part)
        if not_run is not None:
            not_run[part] = f"{type(error).__name__}: {message_of(error, 300)}"


def take_references(model: Model, probes: Sequence[Probe], pace: Pace, *, fused: bool = True) -> EagerSide:
    """Points 1 and 3: the eager module in its own dtype on every probe, with an oracle to be asked for each.

    ``fused``: whether it is to be learned how torch's fused attention departs.
    Raises InvalidOptions for a client's probe on which the model does not run.
    """
    references: list[Reference] = []
    skipped: list[ProbeResult] = []
    findings: list[Finding] = []
    clock, nominal = Stopwatch(), 0.0
    with clock.part("reference"):
        for probe in probes:
            pace()
            taken = _scaled_reference(model, probe, skipped) if probe.scaled else _reference(model, probe, findings)
            if taken is None:
                continue
            if probe.scaled and taken.seconds > allowed(nominal):
                skipped.append(skipped_probe(probe, f"a forward takes {taken.seconds:.2g} s, against {nominal:.2g} s"))
            elif taken.finite:
                references.append(taken)
                nominal = max(nominal, taken.seconds)
            elif probe.scaled:
                skipped.append(skipped_probe(probe, "the model's own outputs are not finite at this scale"))
            else:
                detail = f"the model's own outputs hold NaN or infinity on {probe.name}"
                findings.append(finding_of(Reason.non_finite, detail))
    taken_together = pooled(references)
    with clock.part("fused_attention"), _logged("fused_attention"):
        departure = fused_departure(model, taken_together) if fused else None
        if departure is not None:
            findings.append(finding_of(Reason.fused_attention, departure))
    return EagerSide(taken_together, skipped, findings, seconds=clock.seconds)


def unfit_at_scale(model: Model, taken: Reference) -> str | None:
    """Why a probe outside the declared distribution is no evidence, or None. Asks the oracle."""
    if taken.probe.scaled and amplifies_rounding(model, taken):
        return "the model itself amplifies rounding at this scale"
    return None


def _reference(model: Model, probe: Probe, findings: list[Finding]) -> Reference | None:
    try:
        return reference(model, probe, model.coarseness)
    except ModelFailed as failed:
        if probe.seed is None:
            raise InvalidOptions(_refused_by_the_model(model.signature, probe, failed)) from failed
        exported = sample_sizes(model.signature)
        if probe.sizes == exported:
            detail = f"the model does not run on {probe.name} at {probe.sizes}: {failed}"
            findings.append(finding_of(Reason.shape_specialised, detail))
            return None
    # The dims certificate says that the model fails at those sizes; the draw is still worth having at the exported.
    return _reference(model, draw_probe(model.signature, exported, probe.seed, name=probe.name), findings)


def _refused_by_the_model(signature: Signature, probe: Probe, failed: ModelFailed) -> str:
    """A client's probe on which the model itself fails, and which of its numbers lie outside of what is declared."""
    outside = []
    for spec in signature.inputs:
        if isinstance(values := spec.distribution, Integers):
            value = probe.inputs[spec.name]
            beyond = value[(value < values.low) | (value > values.high)]
            if beyond.numel():
                outside.append(
                    f"input {spec.name!r} holds {beyond[0]}, where {values.low} to {values.high} is declared"
                )
    sizes = ", ".join(f"{axis} {size}" for axis, size in probe.sizes.items())
    why = "; ".join([*outside, str(failed)])
    return f"The model does not run on the probe {probe.name!r}{f' ({sizes})' if sizes else ''}: {why}"


def _scaled_reference(model: Model, probe: Probe, skipped: list[ProbeResult]) -> Reference | None:
    """As ``_reference``, for what lies outside the declared distribution: the model may refuse it, or cost too much."""
    try:
        with memory_ceiling(LEAST_BYTES):
            return reference(model, probe, model.coarseness)
    except ModelFailed as failed:
        skipped.append(skipped_probe(probe, f"the model itself does not run at this scale: {failed}"))
        return None


def skipped_probe(probe: Probe, reason: str) -> ProbeResult:
    """What the report says of a probe that was left out."""
    return ProbeResult(probe=probe.name, seed=probe.seed, sizes=probe.sizes, passed=True, reason=f"skipped: {reason}")
