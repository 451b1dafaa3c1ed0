"""The report as one HTML page that needs nothing else: no network, no script, no font.

Names in it come from files that strangers uploaded: everything is escaped by Jinja, and a content security policy in
the page forbids scripts and every request.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from app.delivery import charts, words
from app.domain.conversion import Stage
from app.domain.report import ConversionReport, Ledger, OutputParity, ProbeResult, Verdict, VerificationReport
from app.targets.specs import SPECS

LISTED_ROWS = 1000
"""Rows of a table on the page; the JSON report has all of them."""

LEDGER_CLASSES = (
    "identical",
    "cast",
    "transposed",
    "folded",
    "tied_to",
    "unused",
    "ignored",
    "unaccounted",
)
INITIALIZER_ORIGINS = ("tensor", "fold", "constant", "unexplained")


@dataclass(frozen=True)
class OutputSummary:
    """The worst comparison of one output over all probes."""

    output: str
    worst: OutputParity
    probe: str
    comparisons: int


def worst_of_outputs(verification: VerificationReport) -> tuple[OutputSummary, ...]:
    """For each output, in the order first seen, the comparison with the highest ratio to its gate."""
    by_output: dict[str, list[tuple[OutputParity, ProbeResult]]] = {}
    for probe in verification.probes:
        for parity in probe.outputs:
            by_output.setdefault(parity.output, []).append((parity, probe))
    summaries = []
    for output, comparisons in by_output.items():
        worst, probe = max(comparisons, key=lambda pair: _severity(pair[0]))
        summaries.append(OutputSummary(output, worst, probe.probe, len(comparisons)))
    return tuple(summaries)


def _severity(parity: OutputParity) -> tuple[bool, float]:
    """Failures first; a ratio that is not a number is worse than any that is."""
    ratio = parity.ratio if parity.ratio == parity.ratio else float("inf")
    return (not parity.passed, ratio)


def stage_seconds(timings: Mapping[str, float]) -> dict[str, float]:
    """Timings of the known stages in the order in which they run, then whatever else was measured."""
    known = {stage.value: timings[stage.value] for stage in Stage if stage.value in timings}
    return known | {name: value for name, value in timings.items() if name not in known}


def headline(report: ConversionReport) -> str:
    """What the verdict rests on, in one sentence."""
    verification = report.verification
    if report.problem is not None:
        return report.problem.detail
    if verification.verdict is Verdict.inconclusive:
        undecided = [f for f in verification.findings if f.severity == "inconclusive"]
        return undecided[0].detail if undecided else "The checks that ran cannot decide."
    comparisons = sum(len(probe.outputs) for probe in verification.probes)
    if verification.worst_ratio is None:
        return "No output was compared."
    sentence = (
        f"{comparisons} output comparisons in {len(verification.probes)} probes against "
        f"{'a double-precision' if verification.oracle == 'fp64' else 'a reordered single-precision'} reference: "
        f"the worst error is {words.scientific(verification.worst_ratio)} of what rounding explains."
    )
    if verification.ledger is not None and verification.ledger.passed:
        sentence += f" All {words.count(len(verification.ledger.entries))} uploaded tensors are accounted for."
    return sentence


def ledger_bars(ledger: Ledger) -> dict[str, tuple[charts.Segment, ...]]:
    """Both sides of the ledger as stacked bars of bytes."""
    by_class = {label: float(ledger.bytes_by_class.get(label, 0)) for label in LEDGER_CLASSES}
    by_origin = {label: float(ledger.bytes_by_origin.get(label, 0)) for label in INITIALIZER_ORIGINS}
    return {"uploaded": charts.stacked(by_class), "artifact": charts.stacked(by_origin)}


def page_environment(*packages: str) -> Environment:
    """Jinja over the template folders of these packages, with the words and pictures of pages as filters."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, "templates") for package in packages]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        size=words.size,
        seconds=words.seconds,
        sci=words.scientific,
        count=words.count,
        shape=words.shape,
        name=words.name,
        value=words.value,
        moment=words.moment,
        reason=words.reason_words,
        position=charts.gate_position,
        proportion=charts.proportion,
    )
    return environment


@cache
def _environment() -> Environment:
    return page_environment("app.delivery")


def report_values(report: ConversionReport) -> dict[str, Any]:
    """What the templates of the report's sections need."""
    verification = report.verification
    return {
        "report": report,
        "target_title": SPECS[report.target].title,
        "verification": verification,
        "verdict_words": words.VERDICT_WORDS[verification.verdict],
        "headline": headline(report),
        "outputs": worst_of_outputs(verification),
        "stages": charts.stacked(stage_seconds(report.timings)),
        "total_seconds": sum(report.timings.values()),
        "ledger_bars": None if verification.ledger is None else ledger_bars(verification.ledger),
        "ticks": charts.gate_ticks(),
        "rows": LISTED_ROWS,
    }


def render(report: ConversionReport) -> str:
    """The page. The same report gives the same bytes."""
    return _environment().get_template("report/page.html").render(**report_values(report))
