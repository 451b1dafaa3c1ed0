"""Run everything: faithful and faulty artifacts through our verdict and through the other tools' rules."""

import copy
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from fault_table.artifacts import DYNAMO, SCRIPT, WAYS, Artifact, Writer, writer
from fault_table.faults import graph_faults, weight_faults, with_faults
from fault_table.nets import NETS, Net, trained
from fault_table.rules import RULES, accepts
from torch import Tensor, nn

from app.architectures.calling import EagerModel
from app.conversion.verification.comparison import compare
from app.conversion.verification.oracle import eager, reference
from app.conversion.verification.perturbation import draw_perturbations
from app.conversion.verification.probes import draw_probe, draw_probes, sample_sizes
from app.conversion.verification.subject import Subject
from app.conversion.verification.verify import verify
from app.domain.architecture import Signature
from app.domain.checkpoint import LoadReport
from app.domain.errors import RecastError
from app.domain.report import Reason, Verdict, VerificationReport
from app.targets.artifact import ArtifactRefused
from app.targets.reader import reader_of

OBSERVED_SEED = 3000
OBSERVED_FAULTS = 160
"""Faults per net by which the detection power is observed: two standard deviations are then below 0.07."""
ORACLE = "fp64 oracle, K = 8"
"""Our parity check alone, without the ledger and the audits."""

Progress = Callable[[str], None]


@dataclass
class Score:
    """How one rule did. ``faulty`` counts weight faults; graph faults are counted apart."""

    false_alarms: int = 0
    faithful: int = 0
    missed: int = 0
    faulty: int = 0
    graph_faults_passed: int = 0
    graph_faults: int = 0

    def faithful_seen(self, accepted: bool) -> None:
        self.faithful += 1
        self.false_alarms += not accepted

    def faulty_seen(self, accepted: bool) -> None:
        self.faulty += 1
        self.missed += accepted

    def graph_fault_seen(self, accepted: bool) -> None:
        self.graph_faults += 1
        self.graph_faults_passed += accepted

    def __add__(self, other: "Score") -> "Score":
        mine, theirs = asdict(self), asdict(other)
        return Score(**{name: mine[name] + theirs[name] for name in mine})


@dataclass
class Power:
    """Detection power of one net: as verification reported it, and as the faulty artifacts showed it."""

    reported: list[float] = field(default_factory=list)
    seen: int = 0
    injected: int = 0

    @property
    def claimed(self) -> float:
        return sum(self.reported) / len(self.reported)

    @property
    def observed(self) -> float:
        return self.seen / self.injected


@dataclass
class Table:
    """Everything that was found out about some nets."""

    ours: Score = field(default_factory=Score)
    rules: dict[str, Score] = field(default_factory=lambda: {name: Score() for name in (*RULES, ORACLE)})
    ways: dict[str, Score] = field(default_factory=dict)
    """Our own score by way of making artifacts."""
    power: dict[str, Power] = field(default_factory=dict)
    kinds: dict[str, Counter[str]] = field(default_factory=dict)
    """Verdicts by kind of fault."""
    remarks: list[str] = field(default_factory=list)
    """Each false alarm, miss, doubt and refused export, in words."""

    def answered(self, kind: str, answer: str) -> None:
        self.kinds.setdefault(kind, Counter())[answer] += 1

    def add(self, other: "Table") -> None:
        """Take in what was found out about other nets, or of another kind."""
        self.ours += other.ours
        for name, score in other.rules.items():
            self.rules[name] += score
        for way, score in other.ways.items():
            self.ways[way] = self.ways.get(way, Score()) + score
        self.power |= other.power
        for kind, verdicts in other.kinds.items():
            self.kinds.setdefault(kind, Counter()).update(verdicts)
        self.remarks += other.remarks


def build_table(faults_per_net: int, processes: int, progress: Progress) -> Table:
    """The table over all nets. Pieces of work go to processes of their own; each is reproducible by itself."""
    table = Table()
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        pieces = [(net.name, pool.submit(weight_table, net.name, faults_per_net)) for net in NETS]
        pieces += [(f"{name}, wrong graphs", pool.submit(graph_table, name)) for name in nets_with_graph_faults()]
        for name, piece in pieces:
            table.add(piece.result())
            progress(name)
    return table


def weight_table(name: str, faults: int) -> Table:
    """Faithful conversions of one net and weight faults in them."""
    _prepare()
    table = Table()
    number = [net.name for net in NETS].index(name)
    with TemporaryDirectory() as scratch:
        _weights(table, NETS[number], number, faults, Path(scratch))
    return table


def nets_with_graph_faults() -> list[str]:
    return list(dict.fromkeys(fault.net.name for fault in graph_faults()))


def graph_table(name: str) -> Table:
    """Artifacts of one net's twins, whose graphs are wrong."""
    _prepare()
    table = Table()
    for number, fault in enumerate(fault for fault in graph_faults() if fault.net.name == name):
        module = trained(fault.net, seed=number % 3)
        with TemporaryDirectory() as scratch:
            try:
                artifact = fault.make(module, Path(scratch))
            except RecastError as noticed:
                table.answered(fault.kind, "refused by the exporter")
                table.remarks.append(f"{name}, {fault.kind}, {fault.way}: no artifact: {noticed}"[:160])
                continue
            _graph_fault(table, _Trial(module, fault.net, artifact, seed=number), f"{name}, {fault.way}", fault.kind)
    return table


def _prepare() -> None:
    torch.set_num_threads(1)  # the nets are small: a second thread costs more than it gives
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")


@dataclass(frozen=True)
class _Trial:
    """One artifact against one module."""

    module: nn.Module
    net: Net
    artifact: Artifact
    seed: int
    alone: bool = False
    """Of an approximation: what it was derived from is right, and not asked."""

    def report(self) -> VerificationReport:
        """Of an approximation, that of its exact form where this is refused, as a conversion is then refused."""
        exact = self.artifact.exact
        if exact is None:
            return verify(self._subject(self.artifact))
        if not self.alone and not (report := verify(self._subject(exact))).verdict.proved:
            return report
        return verify(self._subject(self.artifact), "budget")

    def _subject(self, artifact: Artifact) -> Subject:
        return Subject(
            module=self.module,
            signature=self.net.signature,
            load=LoadReport(strict=True),
            uploaded=self.module.state_dict(),
            target=artifact.target,
            artifact=artifact.path,
            export=artifact.export,
            seed=self.seed,
            threads=torch.get_num_threads(),
            claims=artifact.claims,
            coarseness=artifact.coarseness,
            tolerance=artifact.tolerance,
        )

    def outputs(self) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor] | None]:
        """(model's, artifact's) on one draw at the exported sizes, as other tools compare; None: it did not run."""
        signature = self.net.signature
        inputs = draw_probe(signature, sample_sizes(signature), self.seed).inputs
        expected = eager(EagerModel(self.module, signature), inputs)
        try:
            runner = reader_of(self.artifact.target).open(
                self.artifact.path, EagerModel(self.module, signature), threads=torch.get_num_threads()
            )
            return expected, runner.run(inputs)
        except ArtifactRefused:
            return expected, None


def _judge(table: Table, trial: _Trial, count: Callable[[Score, bool], None]) -> VerificationReport:
    """Count one artifact for every rule; a verdict of inconclusive is no acceptance."""
    report = trial.report()
    expected, actual = trial.outputs()
    for name, rule in RULES.items():
        count(table.rules[name], accepts(rule, expected, actual))
    count(table.rules[ORACLE], _parity_passed(report))
    count(table.ours, report.verdict.proved)
    return report


def _parity_passed(report: VerificationReport) -> bool:
    # An artifact that does not run has no probes at all.
    return bool(report.probes) and all(probe.passed for probe in report.probes)


def _weights(table: Table, net: Net, number: int, faults: int, directory: Path) -> None:
    """Faithful artifacts of two trainings by every way, then weight faults spread over the ways."""
    power = table.power[net.name] = Power()
    module, other = trained(net, seed=number), trained(net, seed=100 + number)
    writers, faithful = {}, {}
    for place, way in enumerate(WAYS):
        if way == SCRIPT and not net.scriptable:
            continue
        # Exported with other weights than the ones it is filled with: the graph must not depend on them.
        try:
            writers[way] = write = writer(copy.deepcopy(other), net.signature, way, directory)
        except RecastError as noticed:
            table.answered("(faithful)", "refused by the exporter")
            table.remarks.append(f"REFUSED {net.name}, {way}: {noticed}"[:160])
            continue
        artifact = write(module.state_dict(), directory / "faithful")
        faithful[way] = artifact.sha256
        trial = _Trial(module, net, artifact, seed=10 * number + place)
        report = _judge(table, trial, Score.faithful_seen)
        table.ways.setdefault(way, Score()).faithful_seen(report.verdict.proved)
        table.answered("(faithful)", report.verdict.value)
        if report.detection is not None:
            power.reported.append(report.detection.power)
        if not report.verdict.proved:
            table.remarks.append(f"FALSE ALARM {net.name}, {way}: {_why(report)}")
    _observe_power(power, module, net.signature, writers[DYNAMO], directory / "faulty")
    ways = list(writers)
    for place, fault in enumerate(weight_faults(module, faults, seed=1000 + number)):
        way = ways[place % len(ways)]
        artifact = writers[way](with_faults(module.state_dict(), fault), directory / "faulty")
        if artifact.sha256 == faithful[way]:  # a coarser precision rounds it away, so the file is the right one
            table.answered(fault.kind, "no fault in the file")
            continue
        report = _judge(table, _Trial(module, net, artifact, 2000 + place, alone=True), Score.faulty_seen)
        table.ways.setdefault(way, Score()).faulty_seen(report.verdict.proved)
        table.answered(fault.kind, report.verdict.value)
        if report.verdict is not Verdict.fail:
            table.remarks.append(f"MISS {net.name}, {way}, {fault.kind} in {list(fault.tensors)[:2]}: {_why(report)}")


def _observe_power(power: Power, module: nn.Module, signature: Signature, write: Writer, path: Path) -> None:
    """Put further weight faults into artifacts and see which of them the probes alone notice."""
    references = [reference(EagerModel(module, signature), probe) for probe in draw_probes(signature, OBSERVED_SEED)]
    for fault in draw_perturbations(module, OBSERVED_FAULTS, seed=OBSERVED_SEED):
        artifact = write(with_faults(module.state_dict(), fault), path)
        runner = reader_of(artifact.target).open(artifact.path, EagerModel(module, signature), threads=1)
        power.injected += 1
        power.seen += any(not compare(runner, taken).result.passed for taken in references)


def _graph_fault(table: Table, trial: _Trial, place: str, kind: str) -> None:
    report = _judge(table, trial, Score.graph_fault_seen)
    table.answered(kind, report.verdict.value)
    if report.verdict is not Verdict.fail:
        table.remarks.append(f"{report.verdict.value.upper()} {place}, {kind}: {_why(report)}")


def _why(report: VerificationReport) -> str:
    return "; ".join(f"{f.reason.value}: {f.detail[:120]}" for f in report.findings) or "no findings"


def poisoned_and_mislabelled() -> dict[str, str]:
    """NaN-producing weights and a wrong opset claim on the first net: what each was answered with."""
    _prepare()
    answers = {}
    with TemporaryDirectory() as scratch:
        net, module = NETS[0], trained(NETS[0], seed=0)
        write = writer(module, net.signature, DYNAMO, Path(scratch))
        artifact = write(module.state_dict(), Path(scratch) / "right")
        lied = replace(artifact, export=artifact.export.model_copy(update={"opset": 17}))
        answers["opset lied about"] = _failed_for(_Trial(module, net, lied, 0).report(), Reason.opset)
        with torch.no_grad():
            module.head.weight[0, 0] = float("nan")
        poisoned = write(module.state_dict(), Path(scratch) / "poisoned")
        answers["NaN-producing weights"] = _failed_for(_Trial(module, net, poisoned, 0).report(), Reason.non_finite)
    return answers


def _failed_for(report: VerificationReport, reason: Reason) -> str:
    named = any(finding.reason is reason and finding.severity == "fail" for finding in report.findings)
    return f"fail: {reason.value}" if named else f"{report.verdict.value}, not for {reason.value}"
