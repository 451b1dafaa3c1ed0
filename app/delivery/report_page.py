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
from app.delivery.treemap import ledger_map
from app.domain.architecture import Axis, Distribution, Integers, Mask, Normal, Signature, Uniform
from app.domain.conversion import Stage
from app.domain.reasons import REASONS
from app.domain.report import (
    BudgetReport,
    ConversionReport,
    Detection,
    Finding,
    LayerDetection,
    Ledger,
    OutputParity,
    ProbeResult,
    Verdict,
    VerificationReport,
)
from app.targets.specs import SPECS

LISTED_ROWS = 1000
"""Rows of a table on the page; the JSON report has all of them."""

LEDGER_CLASSES = (
    "identical",
    "cast",
    "transposed",
    "quantized",
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
    """What the verdict rests on, in one sentence; of a failure its first cause, for what follows from it is below."""
    verification = report.verification
    deciding = deciding_findings(verification)
    if deciding:
        return deciding[0].detail
    if verification.verdict is Verdict.inconclusive:
        return "The checks that ran cannot decide."
    if report.problem is not None:
        return report.problem.detail
    comparisons = sum(len(probe.outputs) for probe in verification.probes)
    if verification.worst_ratio is None:
        return "No output was compared."
    if verification.budget is not None:
        return _budget_sentence(report, verification.budget)
    sentence = (
        f"{comparisons} output comparisons in {len(verification.probes)} probes against "
        f"{'a double-precision' if verification.oracle == 'fp64' else 'a reordered single-precision'} reference: "
        f"the worst error is {words.scientific(verification.worst_ratio)} of what rounding explains."
    )
    if verification.ledger is not None and verification.ledger.passed:
        sentence += f" All {words.count(len(verification.ledger.entries))} uploaded tensors are accounted for."
    return sentence


def _budget_sentence(report: ConversionReport, budget: BudgetReport) -> str:
    """How near an approximation is, to what, and what it was derived from."""
    nearest = min((o.snr_db for o in budget.outputs if o.snr_db is not None), default=None)
    agreement = min((o.top1 for o in budget.outputs if o.top1 is not None), default=None)
    named = "the default" if budget.default else "the request's"
    figures = [
        f"SNR {nearest:.1f} dB ({named} budget: {budget.snr_db:g})" if nearest is not None else "no difference",
        *([f"top-1 agreement {agreement:.1%} (budget: {budget.top1:.1%})"] if agreement is not None else []),
    ]
    quantization, exact = report.export.quantization, report.derived_from
    layers = quantization.layers if quantization else ()
    kept = sum(layer.precision == "fp32" for layer in layers)
    sentence = f"An approximation of the model: {', '.join(figures)} over {len(report.verification.probes)} probes, "
    sentence += f"{len(layers) - kept} of {len(layers)} layers in 8 bits."
    if exact is not None:
        worst = exact.verification.worst_ratio
        near = "" if worst is None else f", worst error {words.scientific(worst)} of what rounding explains"
        sentence += f" It is derived from the float32 artifact: {exact.verification.verdict.value}{near}."
    return sentence


def deciding_findings(verification: VerificationReport) -> tuple[Finding, ...]:
    """Those that made the verdict a fail or an inconclusive, causes first."""
    order = {reason: place for place, reason in enumerate(REASONS)}
    deciding = [f for f in verification.findings if f.severity == verification.verdict.value]
    return tuple(sorted(deciding, key=lambda finding: order[finding.reason]))


def next_steps(report: ConversionReport) -> tuple[str, ...]:
    """What to do now, the most useful first."""
    verification = report.verification
    if deciding := deciding_findings(verification):
        return tuple(dict.fromkeys(remedy for f in deciding if (remedy := REASONS[f.reason].remedy)))
    steps = [f"Download {words.name(report.artifact.filename)} and run it with the program under “Run it”."]
    if report.artifact_data is not None:
        steps.append(f"Keep {words.name(report.artifact_data.filename)} beside it: it holds the weights.")
    if (beside := report.export.weights_beside) is not None:
        steps.append(f"Keep the uploaded file beside it as {words.name(beside.filename)}: the weights stay in there.")
    steps += dict.fromkeys(remedy for f in verification.findings if (remedy := REASONS[f.reason].remedy))
    steps.append("Prove it again where it will run: unpack the bundle there and run its check.py.")
    return tuple(steps)


@dataclass(frozen=True)
class DetectionOfLayer:
    """Negative control of one layer: how many perturbed tensors were seen, and the weakest effect on the outputs."""

    layer: str
    seen: int
    trials: int
    weakest: float
    """The least effect / gate; 1 is the limit from which it is seen."""


def detection_by_layer(detection: Detection) -> tuple[DetectionOfLayer, ...]:
    """In the order in which the layers were tried."""
    by_layer: dict[str, list[LayerDetection]] = {}
    for trial in detection.trials:
        by_layer.setdefault(trial.layer, []).append(trial)
    return tuple(
        DetectionOfLayer(layer, sum(t.seen for t in trials), len(trials), min(t.ratio for t in trials))
        for layer, trials in by_layer.items()
    )


@dataclass(frozen=True)
class InputContract:
    """One input as whoever runs the artifact must feed it."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    values: str
    preprocessing: str | None


def input_contract(signature: Signature) -> tuple[InputContract, ...]:
    return tuple(
        InputContract(spec.name, spec.dtype, spec.shape, _values(spec.distribution), spec.preprocessing)
        for spec in signature.inputs
    )


def axis_contract(signature: Signature) -> dict[str, str]:
    """The sizes that each symbolic axis of the inputs may have, in words."""
    used = {size: None for spec in signature.inputs for size in spec.shape if isinstance(size, str)}
    return {name: _sizes(signature.axis(name)) for name in used}


def _values(distribution: Distribution) -> str:
    match distribution:
        case Normal(mean=mean, std=std):
            return f"real numbers about {mean:g} ± {std:g}"
        case Uniform(low=low, high=high):
            return f"real numbers from {low:g} to {high:g}"
        case Integers(low=low, high=high):
            return f"integers from {words.count(low)} to {words.count(high)}"
        case Mask():
            return "1 where there is something, 0 for padding at the end"


def _sizes(axis: Axis) -> str:
    upper = f" to {words.count(axis.maximum)}" if axis.maximum is not None else " up"
    steps = f", multiples of {axis.multiple_of}" if axis.multiple_of > 1 else ""
    return f"from {axis.minimum}{upper}{steps}"


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
        effect=charts.effect_position,
        proportion=charts.proportion,
    )
    return environment


@cache
def _environment() -> Environment:
    return page_environment("app.delivery")


def report_values(
    report: ConversionReport, links: Mapping[str, str] | None = None, certifying: str | None = None
) -> dict[str, Any]:
    """What the templates of the report's sections need.

    ``links``: words to where they lead; ``certifying``: where the conversion is that proved the graph.
    """
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
        "steps_to_take": next_steps(report),
        "ledger_bars": None if verification.ledger is None else ledger_bars(verification.ledger),
        "layers": () if verification.ledger is None else ledger_map(verification.ledger),
        "detection": () if verification.detection is None else detection_by_layer(verification.detection),
        "contract": () if report.signature is None else input_contract(report.signature),
        "axes": {} if report.signature is None else axis_contract(report.signature),
        "programs": SPECS[report.target].usage(report),
        "links": links or {},
        "certifying": certifying,
        "ticks": charts.gate_ticks(),
        "rows": LISTED_ROWS,
    }


def report_page(report: ConversionReport, links: Mapping[str, str], hosted: bool) -> str:
    """The page as it is sent. ``hosted``: by the service, which shows the conversion that proved the graph too."""
    return render(report, links, certifying_page(report) if hosted else None)


def certifying_page(report: ConversionReport) -> str | None:
    """The page of the conversion that proved the graph which this one's weights were filled into."""
    used = report.export.template
    return f"/conversions/{used.certificate.conversion_id}" if used and used.certificate else None


def render(report: ConversionReport, links: Mapping[str, str] | None = None, certifying: str | None = None) -> str:
    """The page. The same report and links give the same bytes."""
    return _environment().get_template("report/page.html").render(**report_values(report, links, certifying))
