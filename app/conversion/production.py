"""Produce an artifact that verification accepts: from a stored template, or from a new one by each exporter in turn.

Every try is a rung of the report's ladder. A rung whose artifact verification refuses is ``rejected`` and the next one
is tried, so that a client gets the right file wherever one exporter can make it. The quickest exporter comes first, for
models of which its capture cannot be worse than another's (docs/decisions/0014). An artifact whose capture verification
doubts is kept for the case that no other exporter makes a better one.
"""

import logging
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch

from app.architectures.module_state import ModuleState
from app.conversion.candidates import Candidate, Workpiece, fill_stored, new_template
from app.conversion.decisions.other_sizes import failure_at
from app.conversion.job import BuiltTemplate, StoredTemplate, TemplateSource, UnsuitableTemplate
from app.conversion.joining import divided, outcomes_of
from app.conversion.prefetch import ReferencePrefetch
from app.conversion.stages import StageClock
from app.conversion.verification.checks.decisions import value_findings
from app.conversion.verification.verify import Verification, examine
from app.domain.conversion import Stage
from app.domain.errors import ExportFailed, ModelRefuses, RecastError, UnsupportedOpset, memory_ran_out
from app.domain.reasons import rests_in
from app.domain.report import Certificate, Derivation, Reason, Rung, TemplateUse, Verdict, VerificationReport
from app.targets.capturing.quiet import first_lines
from app.targets.capturing.side import Side
from app.targets.request import ExportRequest
from app.targets.templating.key import template_key
from app.targets.writer import writer_of

__all__ = ["Produced", "Workpiece", "produce"]

_log = logging.getLogger(__name__)

Known = StoredTemplate | UnsuitableTemplate | None

MOST_FRAMES = 8
"""Innermost frames of an error that the log shows."""

STORED = "template (stored)"
"""Name of the rung that fills a stored template, beside those of the exporters."""


@dataclass(frozen=True)
class Produced:
    """The artifact to deliver: accepted, doubted, or (``verification.verdict`` fail) the first one that was refused."""

    candidate: Candidate
    verification: VerificationReport
    golden: bytes | None
    """npz bytes of the golden inputs and outputs; None when the model would not run."""
    rungs: tuple[Rung, ...]
    template_use: TemplateUse
    template: BuiltTemplate | UnsuitableTemplate | None = None
    discarded: str | None = None
    derived_from: Derivation | None = None
    memory_beside: int = 0
    """Bytes that another process of this conversion held."""


@dataclass(frozen=True)
class Attempt:
    """One way to make the artifact; ``make`` gets a directory of its own."""

    exporter: str
    make: Callable[[Path], Candidate]
    early: bool = False
    """It has another turn: now only an artifact without any reservation is verified."""


def produce(work: Workpiece, templates: TemplateSource, clock: StageClock) -> Produced:
    """Try the rungs in order until verification accepts an artifact without a doubt about its capture.

    Where none is, the first doubted one is produced, else the first refused one. Raises the error of the exporters when
    none made a file: the last one's own error where all failed alike, else ExportFailed with every rung.
    """
    with clock.stage(Stage.export):
        key = template_key(work.description, work.job.architecture_options, work.job.options, work.request.signature)
        known = templates.find(key)
    prefetch = ReferencePrefetch(work.model())
    climb = _Climb(work, key, known, clock, prefetch)
    try:
        if not isinstance(known, StoredTemplate):
            prefetch.begin()
        torch.set_num_threads(work.job.threads)
        for attempt in _attempts(work, known, climb):
            if climb.try_(attempt):
                break
    finally:
        prefetch.end()
    return climb.result()


def _attempts(work: Workpiece, known: Known, climb: "_Climb") -> Iterator[Attempt]:
    if isinstance(known, StoredTemplate):
        yield Attempt(STORED, partial(fill_stored, work, known))
    writer = writer_of(work.job.options.target)
    relaxed = writer.relaxed(work.request)
    exporters = writer.exporters(work.job.options)
    never_ran: set[str] = set()
    for turn, exporter in enumerate(exporters):
        early = exporter in exporters[turn + 1 :]
        if exporter in exporters[:turn]:
            yield from climb.put_aside(exporter)
        else:
            yield Attempt(exporter, partial(new_template, work, exporter), early)
            never_ran |= {exporter} if climb.never_ran else set()
        if relaxed is not None and exporter in never_ran and not early:
            called, request = relaxed
            yield Attempt(f"{exporter} ({called})", partial(new_template, replace(work, request=request), exporter))
    yield from _joined(work, writer.joined, climb)


def _joined(work: Workpiece, exporters: Collection[str], climb: "_Climb") -> Iterator[Attempt]:
    """Graphs of as many captures as the code has ways, one way more whenever the last one was wrong somewhere.

    By the first exporter whose artifact was wrong only where the code's questions are answered otherwise.
    """
    start = (Side({axis.name: axis.sample for axis in work.request.signature.axes}),)
    for exporter in exporters:
        sides, name = climb.divided(start, exporter), exporter
        while sides is not None:
            name = f"{exporter}, {len(sides)} joined"
            yield Attempt(name, partial(new_template, work, exporter, sides=sides))
            sides = climb.divided(sides, name)
        if name != exporter:
            return


@dataclass(frozen=True)
class _Made:
    """An artifact and what verification said of it; ``rung`` is its place in the report's ladder."""

    candidate: Candidate
    verification: Verification
    rung: int


class _Climb:
    """The state of one ladder: what was tried, what was refused, what was learned of the template key."""

    def __init__(self, work: Workpiece, key: str, known: Known, clock: StageClock, prefetch: ReferencePrefetch) -> None:
        self._work, self._key, self._known, self._clock, self._prefetch = work, key, known, clock, prefetch
        self._rungs: list[Rung] = []
        self._errors: dict[str, RecastError] = {}
        self._misfit: str | None = None
        """Why the stored template made no artifact that was accepted."""
        self._accepted: _Made | None = None
        self._doubted: dict[str, _Made] = {}
        self._refused: list[_Made] = []
        self._aside: dict[str, Candidate] = {}
        """What exporters made that have another turn, with reservations."""
        self._made: dict[str, _Made] = {}
        self._state = ModuleState(work.loaded.module)
        self._never_ran = False

    def divided(self, sides: Sequence[Side], exporter: str) -> tuple[Side, ...] | None:
        """The sides to capture after the artifact of these, where that was wrong at sizes that the code tells apart.

        None where there is no such artifact, and where a trace kept what the sample's values decided.
        """
        made = self._made.get(exporter)
        if made is None:
            return None
        report = made.verification.report
        outcomes = outcomes_of(report)
        if all(outcome.agreed for outcome in outcomes) or any(
            f.reason is Reason.frozen_values for f in report.findings
        ):
            return None
        return divided(sides, outcomes, self._prefetch.decisions().sizes)

    @property
    def never_ran(self) -> bool:
        """Whether the last rung failed as one whose opset lacks an operator: it made no file, or one that never ran.

        That the opset is too old the exporter says, or it shows in the file (an operator, an input's rank, an
        attribute), so it is tried out.
        """
        return self._never_ran

    def try_(self, attempt: Attempt) -> bool:
        """Climb one rung. True: no further rung is needed."""
        started = time.perf_counter()
        self._never_ran = False
        candidate = self._make(attempt, started)
        if candidate is None:
            return False
        with self._clock.stage(Stage.verify):
            reserved = self._reservation(candidate) if attempt.early else None
        if reserved is not None:
            self._aside[attempt.exporter] = candidate
            self._rungs.append(_rung(attempt, "rejected", started, reserved))
            return False
        with self._clock.stage(Stage.verify):
            verification = self._verified(candidate)
        report = verification.report
        made = self._made[attempt.exporter] = _Made(candidate, verification, len(self._rungs))
        if report.verdict is not Verdict.fail:
            return self._keep(made, attempt, started)
        self._refused.append(made)
        refused_file = any(rests_in("file", finding.reason) for finding in report.findings)
        self._never_ran = refused_file and not any(probe.passed and probe.outputs for probe in report.probes)
        self._rungs.append(_rung(attempt, "rejected", started, _first_failure(report)))
        if attempt.exporter == STORED:
            self._misfit = f"its artifact was refused: {_first_failure(report)}"
        return any(rests_in("model", finding.reason) for finding in report.findings)

    def put_aside(self, exporter: str) -> Iterator[Attempt]:
        """What this exporter made in its first turn and was not verified, to be verified now."""
        if exporter in self._aside:
            yield Attempt(exporter, _giving(self._aside[exporter]))

    def _reservation(self, candidate: Candidate) -> str | None:
        """Why another exporter may make a better one of this model, in words: known without running the artifact."""
        if candidate.against_reuse is not None:
            return f"other weights could not use it: {candidate.against_reuse}"
        if not candidate.kept:
            return None
        found = value_findings(self._prefetch.decisions(), candidate.kept)
        return f"{found[0].reason}: {found[0].detail}" if found else None

    def _keep(self, made: _Made, attempt: Attempt, started: float) -> bool:
        """Accept the artifact, or put it aside while other exporters may make one without a doubt about its capture."""
        doubt = next((f for f in made.verification.report.findings if rests_in("capture", f.reason)), None)
        if doubt is None:
            self._accepted = made
            self._rungs.append(_rung(attempt, "succeeded", started))
            return True
        self._doubted[attempt.exporter] = made
        self._rungs.append(_rung(attempt, "rejected", started, f"{doubt.reason}: {doubt.detail}"))
        return False

    def _make(self, attempt: Attempt, started: float) -> Candidate | None:
        directory = self._work.job.work_dir / f"rung-{len(self._rungs)}"
        directory.mkdir()
        self._state.restore()  # what earlier runs left in the module must not be captured
        try:
            with self._clock.stage(Stage.export):
                return attempt.make(directory)
        except RecastError as error:
            self._fail(attempt, error, started)
        except Exception as error:
            if memory_ran_out(error):
                raise
            _log.exception("The exporter %s raised what it does not announce", attempt.exporter)
            self._fail(attempt, _unforeseen(error), started)
        if attempt.exporter == STORED:
            self._misfit = f"it does not fit: {self._errors[STORED].detail}"
        return None

    def _fail(self, attempt: Attempt, error: RecastError, started: float) -> None:
        """Note a rung that made nothing. Raises ModelRefuses where no exporter could, since the model itself fails."""
        self._errors[attempt.exporter] = error
        self._never_ran = isinstance(error, UnsupportedOpset)
        self._rungs.append(_rung(attempt, "failed", started, error.detail))
        _log.info("%s", _frames(error))
        self._refuse_unless_it_runs()

    def _verified(self, candidate: Candidate) -> Verification:
        """What verification says of the artifact. Raises ModelRefuses where the model runs on nothing."""
        verification = self._verify(candidate)
        if not verification.report.probes:
            self._refuse_unless_it_runs()
        return verification

    def _refuse_unless_it_runs(self) -> None:
        self._state.restore()
        refusal = failure_at(self._work.request, {})
        if refusal is not None:
            raise _model_refuses(self._work.request, refusal)

    def _verify(self, candidate: Candidate) -> Verification:
        certified = candidate.certificate is not None and self._work.job.options.verification == "auto"
        return examine(
            self._work.subject(candidate),
            "certified" if certified else "full",
            self._prefetch.side,
            self._prefetch.decisions,
        )

    def result(self) -> Produced:
        accepted = [*([self._accepted] if self._accepted else ()), *self._doubted.values()]
        if not accepted and not self._refused:
            raise self._failure()
        made = (accepted or self._refused)[0]
        candidate, verification = made.candidate, made.verification
        if accepted:
            self._rungs[made.rung] = self._rungs[made.rung].model_copy(update={"outcome": "succeeded"})
        learned, use = self._template_facts(candidate, verification.report)
        return Produced(
            candidate=candidate,
            verification=verification.report,
            golden=verification.golden,
            rungs=tuple(self._rungs),
            template_use=use,
            template=learned,
            memory_beside=self._prefetch.memory_bytes,
            discarded=self._key if use.state == "discarded" else None,
        )

    def _template_facts(
        self, candidate: Candidate, report: VerificationReport
    ) -> tuple[BuiltTemplate | UnsuitableTemplate | None, TemplateUse]:
        """What is learned of the template key, and what the report says of it.

        A stored template is discarded only where a new capture of the same weights is accepted: then the graph is at
        fault, and not the checkpoint. What other weights may not use is a fact of the architecture and kept as such.
        What these weights alone need says nothing of a template for others.
        """
        if candidate.certificate is not None:
            return None, TemplateUse(state="reused", key=self._key, certificate=candidate.certificate)
        accepted = report.verdict in (Verdict.passed, Verdict.pass_with_notes)
        if isinstance(self._known, StoredTemplate) or candidate.of_weights is not None:
            refused = accepted and self._stored_was_refused and candidate.of_weights is None
            reason = candidate.of_weights or self._misfit
            return None, TemplateUse(state="discarded" if refused else "not_reusable", key=self._key, reason=reason)
        if isinstance(self._known, UnsuitableTemplate):
            return None, TemplateUse(state="not_reusable", key=self._key, reason=self._known.reason)
        steered = next((finding for finding in report.findings if rests_in("weights", finding.reason)), None)
        against = candidate.against_reuse
        if against is None and steered is not None:
            against = f"other weights would need a proof of their own: {steered.reason}: {steered.detail}"
        if against is not None:
            learned = UnsuitableTemplate(self._key, against)
            return learned, TemplateUse(state="not_reusable", key=self._key, reason=against)
        if accepted and candidate.template is not None:
            certificate = _certificate(self._work.job.conversion_id, report)
            built = BuiltTemplate(self._key, candidate.template, certificate)
            use = TemplateUse(state="built", key=self._key, seconds=candidate.template_seconds, certificate=certificate)
            return built, use
        reason = f"the verdict of its first artifact is {report.verdict.value}, so it could not be certified"
        return None, TemplateUse(state="unused", key=self._key, reason=reason)

    @property
    def _stored_was_refused(self) -> bool:
        return isinstance(self._known, StoredTemplate) and STORED not in self._errors

    def _failure(self) -> RecastError:
        """Why there is no artifact: first what names the cause, then what the other exporters said."""
        errors: dict[str, RecastError] = {}
        for name, error in self._errors.items():
            errors.setdefault(name.partition(" (opset")[0], error)
        if len(errors) > 1:
            errors.pop(STORED, None)
        exporter = next((name for name, error in errors.items() if _names_a_cause(error)), next(iter(errors)))
        cause = errors[exporter]
        others = (f"{name}: {error.detail}" for name, error in errors.items() if name != exporter)
        detail = "; ".join([cause.detail, *others])
        alike = len({type(error) for error in errors.values()}) == 1
        kind, extra = (type(cause), cause.extra) if alike else (ExportFailed, {})
        hints = (error.told_hint for error in (cause, *errors.values()) if _names_a_cause(error))
        advice = next((hint for hint in hints if hint and not any(f"={name}" in hint for name in errors)), kind.hint)
        rungs = [rung.model_dump() for rung in self._rungs]
        return kind(detail, hint=advice, stage=Stage.export.value, **{"rungs": rungs, **extra})


def _giving(candidate: Candidate) -> Callable[[Path], Candidate]:
    """Makes what was made already, wherever that lies."""
    return lambda _directory: candidate


def _names_a_cause(error: RecastError) -> bool:
    """Whether the exporter's words were understood, so that there is a hint for them."""
    return error.told_hint != type(error).hint


def _rung(attempt: Attempt, outcome: str, started: float, reason: str | None = None) -> Rung:
    _log.info("%s %s%s", attempt.exporter, outcome, f": {reason}" if reason else "")
    return Rung.model_validate(
        {"exporter": attempt.exporter, "outcome": outcome, "seconds": time.perf_counter() - started, "reason": reason}
    )


def _frames(error: BaseException) -> str:
    """Where an error came from and what caused it, without the heading by which what nobody foresaw is known."""
    told = traceback.TracebackException.from_exception(error, limit=-MOST_FRAMES).format()
    return "".join(told).replace("Traceback (most recent call last):\n", "").rstrip()


def _unforeseen(error: Exception) -> RecastError:
    return ExportFailed(f"{type(error).__name__}: {first_lines(str(error))}", stage=Stage.export.value)


def _model_refuses(request: ExportRequest, said: str) -> ModelRefuses:
    inputs = (f"{spec.name} {tuple(request.sample[spec.name].shape)}" for spec in request.signature.inputs)
    return ModelRefuses(f"The model's own forward fails on its declared inputs, {', '.join(inputs)}: {said}")


def _first_failure(report: VerificationReport) -> str:
    return next(f"{finding.reason}: {finding.detail}" for finding in report.findings if finding.severity == "fail")


def _certificate(conversion_id: str, report: VerificationReport) -> Certificate:
    return Certificate(
        conversion_id=conversion_id,
        certified_at=datetime.now(UTC).isoformat(timespec="seconds"),
        verdict=report.verdict,
        probes=len(report.probes),
        worst_ratio=report.worst_ratio or 0.0,
        dims=report.dims,
        detection_power=report.detection.power if report.detection else None,
    )
