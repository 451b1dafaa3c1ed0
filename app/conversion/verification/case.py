"""What a check gets: everything that one verification has found so far, of which the report is made at the end."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch

from app.architectures.module_state import ModuleState
from app.conversion.decisions.search import Decisions
from app.conversion.verification.comparison import Comparison
from app.conversion.verification.golden import golden_npz
from app.conversion.verification.reference import Reference
from app.conversion.verification.stopwatch import Stopwatch
from app.conversion.verification.subject import Subject
from app.conversion.verification.tolerance import constants
from app.conversion.verification.verdict import settle, verdict_of
from app.domain.reasons import finding_of
from app.domain.report import (
    AxisCertificate,
    BudgetReport,
    Decision,
    Departure,
    Detection,
    Finding,
    Latency,
    Ledger,
    Matrix,
    OutputParity,
    ProbeResult,
    Reason,
    Sensitivity,
    VerificationReport,
)
from app.targets.artifact import GraphFacts, Runner

SMALL_SECONDS = 0.1
"""Of processor time of a forward up to which one thread serves a model best.

On more it gains at most as much, and where other processes want the cores it loses many times that: a repeat's
verification of mobilenet_v3_small took 0.11 s on one thread and 0.14 s on two, beside six busy processes 0.6 and 3.2 s.
"""
SMALL_BYTES = 64 << 20
"""Of parameters up to which a first forward by one thread costs little, so that it can be measured."""


Pace = Callable[[], bool]
"""Called before every probe and every perturbation of a weight; True: somebody waits for the result."""


def unhurried() -> bool:
    """The pace of a process that has nothing else to heed."""
    return False


@dataclass(frozen=True)
class OtherWay:
    """Operators and constants that the model uses only while it is exported or only when not, with how often.

    ``on_integers``: the two ways part in integers and booleans that are made of the inputs alone (masks, positions), so
    that other weights change nothing of it.
    """

    operators: Counter[str]
    on_integers: bool = False


@dataclass(frozen=True)
class EagerSide:
    """What was not looked for is None; ``detection`` is so too where the module has no float weights."""

    references: Sequence[Reference]
    skipped: Sequence[ProbeResult] = ()
    """Probes that say nothing, with the reason: scaled ones on which the model itself overflows or costs too much."""
    findings: Sequence[Finding] = ()
    repeats: bool | None = None
    other_way: OtherWay | None = None
    detection: Detection | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)
    """Parts that could not be brought to an end, with the reason."""


@dataclass
class Case:
    """Filled check by check. ``runner`` is None until the artifact was loaded, and stays None when it was refused."""

    subject: Subject
    mode: Literal["full", "certified", "budget"] = "full"
    eager: Callable[[], EagerSide] | None = None
    find_decisions: Callable[[], Decisions] | None = None
    """Both give what the model alone tells, where it is made elsewhere."""
    clock: Stopwatch = field(default_factory=Stopwatch)
    findings: list[Finding] = field(default_factory=list)
    threads: int = 1
    """By which model and artifact are run."""
    runner: Runner | None = None
    references: list[Reference] = field(default_factory=list)
    compared: list[Comparison] = field(default_factory=list)
    skipped: list[ProbeResult] = field(default_factory=list)
    model_repeats: bool | None = None
    artifact_repeats: bool | None = None
    other_way: OtherWay | None = None
    """None until that was looked at."""
    dims: tuple[AxisCertificate, ...] = ()
    decisions: tuple[Decision, ...] = ()
    eval_mode: bool | None = None
    sensitivity: Sensitivity | None = None
    detection: Detection | None = None
    matrix: Matrix | None = None
    ledger: Ledger | None = None
    budget: BudgetReport | None = None
    departure: Departure | None = None
    latency: Latency | None = None
    not_run: dict[str, str] = field(default_factory=dict)
    """Parts that were left out or not brought to an end, with the reason."""
    as_loaded: ModuleState | None = field(init=False)
    """What the model remembered before any forward of this verification; None where that is not asked."""

    def __post_init__(self) -> None:
        self.as_loaded = None if self.mode == "certified" else ModuleState(self.subject.module)

    def adopt(self, side: EagerSide) -> None:
        """Take over what the model alone has told."""
        self.references += side.references
        self.skipped += side.skipped
        self.findings += side.findings
        self.model_repeats = side.repeats
        self.other_way = side.other_way
        self.detection = side.detection
        self.not_run.update(side.not_run)
        self.clock.seconds.update(side.seconds)
        if min((taken.seconds for taken in side.references), default=math.inf) > SMALL_SECONDS:
            self.use_threads(self.subject.threads)

    def use_threads(self, threads: int) -> None:
        """For everything that is run from now on."""
        self.threads = max(1, threads)
        torch.set_num_threads(self.threads)

    @property
    def told(self) -> list[Finding]:
        """The findings, with what was learned of the oracle where it was asked."""
        asked = next((r for r in self.references if r.oracle.asked and r.kind != "fp64"), None)
        more = [finding_of(Reason.oracle_unavailable, "; ".join(asked.oracle.answer.detours))] if asked else []
        return [*self.findings, *more]

    def find(self, reason: Reason, detail: str) -> None:
        """Add to what was found."""
        self.findings.append(finding_of(reason, detail))

    @property
    def artifact(self) -> Runner:
        """The loaded artifact, for checks that need one."""
        assert self.runner is not None
        return self.runner

    @cached_property
    def facts(self) -> GraphFacts:
        """What the loaded artifact says of its graph, read once."""
        return self.artifact.facts()

    @property
    def failed(self) -> bool:
        return any(finding.severity == "fail" for finding in settle(self.findings))

    def report(self) -> VerificationReport:
        """The report as the findings stand."""
        findings = settle(self.told)
        dtype = next((r.y32[name].dtype for r in self.references for name in r.float_outputs), torch.float32)
        reordered = any(r.oracle.asked and r.kind == "fp32-reordered" for r in self.references)
        return VerificationReport(
            verdict=verdict_of(findings, approximate=self.mode == "budget"),
            findings=findings,
            mode=self.mode,
            gate=constants(dtype, self.subject.coarseness),
            oracle="fp32-reordered" if reordered else "fp64",
            probes=tuple(c.result for c in self.compared) + tuple(self.skipped),
            dims=self.dims,
            decisions=self.decisions,
            deterministic=self.model_repeats and self.artifact_repeats,
            eval_mode=self.eval_mode,
            sensitivity=self.sensitivity,
            detection=self.detection,
            matrix=self.matrix,
            ledger=self.ledger,
            budget=self.budget,
            departure=self.departure,
            latency=self.latency,
            timings=self.clock.seconds,
            not_run=self.not_run,
        )

    def golden(self) -> bytes | None:
        """The first probe of which the oracle told, else the first, as npz bytes; None when the model ran on none."""
        asked = [r for r in self.references if r.oracle.asked and not r.probe.scaled]
        taken = next(iter((*asked, *self.references)), None)
        if taken is None:
            return None
        judged = [output for c in self.compared if c.reference is taken for output in c.result.outputs]
        distances = {output.output: _distance(output) for output in judged}
        return golden_npz(taken, distances, self.subject.io_dtype)


def _distance(output: OutputParity) -> float:
    """How far the artifact lies from eager; of integers 0, or infinite where a budget admits that some differ."""
    if output.is_integer:
        return 0.0 if output.top1 is None or output.top1 == 1 else math.inf
    return output.error
