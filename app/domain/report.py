"""The report of a conversion: every fact the verdict rests on. Its JSON Schema is published with the service.

Errors are absolute and in the output's own units; ``ratio`` is error / gate, so a ratio of at most 1 passes. Durations
are in seconds, sizes in bytes.
"""

import math
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from app.domain.architecture import Signature
from app.domain.base import Value
from app.domain.checkpoint import CheckpointInspection, LoadReport, ParameterReport
from app.domain.conversion import IoDType, TargetName
from app.domain.errors import Problem

REPORT_VERSION = 1


class Verdict(StrEnum):
    passed = "pass"
    pass_with_notes = "pass_with_notes"
    within_budget = "within_budget"
    """An approximation, as far from the model as the request admits and no farther."""
    inconclusive = "inconclusive"
    fail = "fail"

    @property
    def proved(self) -> bool:
        """Whether the artifact is what was asked for, and nothing about it is open."""
        return self in (Verdict.passed, Verdict.pass_with_notes, Verdict.within_budget)


class Reason(StrEnum):
    """Stable codes for why a verdict is what it is. Each is documented in docs/verification.md."""

    # fail
    parity = "parity"
    output_structure = "output_structure"
    non_finite = "non_finite"
    dims = "dims"
    ledger = "ledger"
    opset = "opset"
    training_mode = "training_mode"
    attributes = "attributes"
    """A constant of the graph, such as an epsilon, is not one that the model uses."""
    checker = "checker"
    runtime = "runtime"
    over_budget = "over_budget"
    """An approximation lies farther from the model than its budget admits."""
    check_failed = "check_failed"
    """A check of the verification could not be carried out, so what it would have shown is open."""
    # inconclusive
    insensitive = "insensitive"
    nondeterministic = "nondeterministic"
    shape_specialised = "shape_specialised"
    frozen_values = "frozen_values"
    """A trace kept what Python read of the sample's values, so for other values it may be wrong."""
    assumed_sizes = "assumed_sizes"
    """The graph was made for fewer sizes of an axis than the architecture declares."""
    unloaded_weights = "unloaded_weights"
    """Parts of the model that act on its outputs have initial values, because the checkpoint did not bring them."""
    # notes
    not_strict = "not_strict"
    constant_output = "constant_output"
    """No input reaches an output, beside others that move."""
    oracle_unavailable = "oracle_unavailable"
    blind_layers = "blind_layers"
    unused_tensors = "unused_tensors"
    non_finite_weights = "non_finite_weights"
    static_axis = "static_axis"
    trace_warnings = "trace_warnings"
    unfollowed_code = "unfollowed_code"
    """The model's code took too long to follow, so not all that it decides on sizes and values is known."""
    export_branch = "export_branch"
    """The model's code takes another way while it is exported; the two agree as far as was tried."""
    export_branch_on_integers = "export_branch_on_integers"
    """Likewise, where the two part in integers made of the inputs alone, which no weights steer."""
    fused_attention = "fused_attention"
    """Eager's fused attention gives other values, at padding as a rule; the artifact follows the plain operators."""
    tied_choices = "tied_choices"
    """The artifact points at another of several elements whose scores tie."""
    template_discarded = "template_discarded"
    mismatch_accepted = "mismatch_accepted"


Severity = Literal["note", "inconclusive", "fail"]


class Finding(Value):
    """One reason, with the words for it."""

    reason: Reason
    severity: Severity
    detail: str


# --- export --------------------------------------------------------------------------------------------------------


class Rung(Value):
    """One try of the exporter ladder."""

    exporter: str
    outcome: Literal["succeeded", "failed", "rejected"]
    """rejected: it produced a file that a later check refused."""
    seconds: float
    reason: str | None = None
    """The first lines of why."""


class Certificate(Value):
    """What was proved once for a template's graph: see docs/templates.md."""

    conversion_id: str
    certified_at: str
    verdict: Verdict
    probes: int
    worst_ratio: float
    dims: tuple["AxisCertificate", ...] = ()
    detection_power: float | None = None


class TemplateUse(Value):
    """What became of the weight-free graph that the artifact was filled from. ``seconds`` is what building it cost.

    built: kept for other weights. reused: one that was kept. not_reusable: of this artifact alone, for ``reason``.
    discarded: a kept one was refused and a new one accepted. unused: its artifact was not accepted, so it is not kept.
    unsuitable: not_reusable in reports of earlier versions.
    """

    state: Literal["built", "reused", "discarded", "not_reusable", "unsuitable", "unused"]
    key: str | None = None
    reason: str | None = None
    seconds: float | None = None
    certificate: Certificate | None = None


class QuantizedLayer(Value):
    """A layer that can be computed in 8 bits."""

    layer: str
    """The key of its weight."""
    operator: str
    precision: Literal["int8", "fp32"]
    snr_db: float | None = None
    """Of the worst output with this layer alone in 8 bits, on the sample; None where that was not measured."""


class Quantization(Value):
    """How a graph in 8 bits was made of the one in float32."""

    activations: Literal["dynamic", "static"]
    """dynamic: their range is found as the graph runs. static: it was measured beforehand."""
    calibration: str | None = None
    """What it was measured on, in words."""
    layers: tuple[QuantizedLayer, ...]


class WeightsBeside(Value):
    """The uploaded file into which the artifact points: it must lie beside it, under this name and with these bytes."""

    filename: str
    sha256: str
    bytes: int
    referenced_bytes: int
    """Of the artifact's tensors that lie in it."""
    carried_bytes: int
    """Of those that the artifact itself holds: small ones, and what does not stand in the file as it is."""


class ExportReport(Value):
    target: TargetName
    exporter: str
    rungs: tuple[Rung, ...] = ()
    opset: int | None = None
    ir_version: int | None = None
    input_names: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()
    dynamic_axes: dict[str, dict[int, str]] = Field(default_factory=dict)
    """As delivered: axis position to name, by input name."""
    io_dtype: IoDType | None = None
    """In which inputs and outputs of float32 stand in the file, where that was asked for."""
    warnings: tuple[str, ...] = ()
    made_for: str | None = None
    """The runtime that the request named, and its limits, which the file keeps, in words."""
    quantization: Quantization | None = None
    template: TemplateUse | None = None
    weights_beside: WeightsBeside | None = None
    """None: the artifact has all its weights."""


# --- verification --------------------------------------------------------------------------------------------------


class OutputParity(Value):
    """One output of one probe against its gate (docs/verification.md, "The gate")."""

    output: str
    part: str | None = None
    """Which indices the figures are of, where a part of another scale than the whole lies nearest to its gate."""
    dtype: str
    shape: tuple[int, ...]
    error: float
    """max|artifact - y64|; for integers and booleans the number of differing elements."""
    gate: float
    ratio: float
    scale: float
    """max|y64|."""
    eager_error: float
    """max|y32 - y64|: the honest rounding of the model itself."""
    passed: bool
    tied: int = 0
    """Of indices: elements that differ where scores tie within rounding, which are no error."""
    snr_db: float | None = None
    """Of an approximation. Then ``error`` is the root mean square of artifact - y32, ``gate`` the largest that its
    budget admits, ``scale`` the root mean square of y32; of integers ``ratio`` is 0."""
    top1: float | None = None
    """Of an approximation: the share of rows whose largest value is in the model's place, as the budget counts them."""
    judged_by: Literal["oracle", "eager", "budget"] = "oracle"
    """eager: so near to it that the gate must hold and the oracle was not asked. Then ``error`` is max|artifact - y32|,
    ``gate`` the limit up to which that is proved, ``scale`` max|y32|, and ``eager_error`` 0."""

    @property
    def is_integer(self) -> bool:
        """Of integers or booleans: its elements are equal or they are not."""
        return self.dtype.startswith(("int", "uint", "bool"))


class ProbeResult(Value):
    """One probe run through model and artifact."""

    probe: str
    seed: int | None = None
    sizes: dict[str, int] = Field(default_factory=dict)
    """Size of each symbolic axis."""
    outputs: tuple[OutputParity, ...] = ()
    passed: bool
    reason: str | None = None

    @property
    def worst_ratio(self) -> float:
        return max((output.ratio for output in self.outputs), default=0.0)


class WorstParity(Value):
    """The output that lies nearest to its gate, of all probes; ``ratio`` is error / gate."""

    probe: str
    output: str
    error: float
    gate: float
    ratio: float


def worst_parity(probes: Iterable[ProbeResult]) -> WorstParity | None:
    """None where no output was compared."""
    compared = [(probe.probe, output) for probe in probes for output in probe.outputs]
    if not compared:
        return None
    probe, output = max(compared, key=lambda pair: math.inf if math.isnan(pair[1].ratio) else pair[1].ratio)
    return WorstParity(probe=probe, output=output.output, error=output.error, gate=output.gate, ratio=output.ratio)


class AxisTrial(Value):
    size: int
    passed: bool
    worst_ratio: float | None = None
    reason: str | None = None


class AxisCertificate(Value):
    """One axis of one input, read back from the file and executed at several sizes."""

    input: str
    position: int
    axis: str
    asked: Literal["dynamic", "static"]
    delivered: Literal["dynamic", "static"]
    trials: tuple[AxisTrial, ...] = ()
    passed: bool


class SideTrial(Value):
    """Model and artifact at sizes on one side of a decision."""

    sizes: dict[str, int]
    seen: Literal["agrees", "differs", "model_fails", "not_run"]
    """not_run: too dear beside the nominal probes."""
    reason: str | None = None


class Decision(Value):
    """Something that the model's code asks of its inputs' sizes; a graph may hold one answer only."""

    condition: str
    """Over the names of the axes, as it is at the exported sizes."""
    place: str | None = None
    """File and line of the model's code."""
    by_model: bool = True
    """Asked by the model's own code; else by a layer of torch that it calls."""
    trials: tuple[SideTrial, ...] = ()


class Sensitivity(Value):
    """How far the probes move the outputs: max pairwise |y64(i) - y64(j)| / gate; below ``threshold``: insensitive."""

    per_output: dict[str, float]
    threshold: float
    thresholds: dict[str, float] = Field(default_factory=dict)
    """Those of outputs whose gate is so wide a part of their scale that no move could be ``threshold`` gates."""


class LayerDetection(Value):
    """A negative control: one tensor of a layer perturbed in eager mode; would the probes have seen it?

    ``ratio`` and ``seen`` are by the artifact's gate.
    """

    layer: str
    tensor: str
    perturbation: str
    ratio: float
    seen: bool
    reached: bool | None = None
    """Whether they see it by the gate of the model's own precision, where the artifact has another; older reports do
    not know."""


class Detection(Value):
    """Detection power: the share of perturbed tensors that the probes would have seen, and the blind layers.

    A layer is blind where nothing was seen in it even by the gate of the model's own precision.
    """

    power: float
    reach: float | None = None
    """The share that they see by that gate; older reports do not know."""
    trials: tuple[LayerDetection, ...]
    blind_layers: tuple[str, ...]


class MatrixCell(Value):
    """One way to compute the outputs, against the oracle on the same probe."""

    cell: str
    kind: Literal["capture", "translation", "runtime", "reference"]
    worst_ratio: float | None = None
    seconds: float | None = None
    skipped: str | None = None


class Matrix(Value):
    cells: tuple[MatrixCell, ...]
    culprit: Literal["capture", "translation", "runtime"] | None = None


LedgerClass = Literal[
    "identical", "cast", "transposed", "quantized", "folded", "tied_to", "unused", "ignored", "unaccounted"
]
InitializerOrigin = Literal["tensor", "fold", "constant", "unexplained"]


class LedgerEntry(Value):
    """Where one uploaded tensor went. ``initializers`` are the artifact's tensors that carry it."""

    tensor: str
    ledger_class: LedgerClass
    bytes: int
    initializers: tuple[str, ...] = ()
    detail: str | None = None


class InitializerEntry(Value):
    """Where one tensor of the artifact came from."""

    name: str
    origin: InitializerOrigin
    bytes: int
    sources: tuple[str, ...] = ()
    detail: str | None = None


class Ledger(Value):
    """Every uploaded tensor in exactly one class, every initializer explained, bytes adding up both ways."""

    entries: tuple[LedgerEntry, ...]
    initializers: tuple[InitializerEntry, ...]
    uploaded_bytes: int
    artifact_bytes: int
    bytes_by_class: dict[str, int]
    bytes_by_origin: dict[str, int]
    passed: bool
    problems: tuple[str, ...] = ()


class Departure(Value):
    """The first named module whose value departs from eager."""

    module: str
    kind: str
    value: str
    ratio: float


class Latency(Value):
    """Seconds per call at the sample size, this machine, one after the other."""

    eager_p50: float
    eager_p95: float
    artifact_p50: float
    artifact_p95: float
    runs: int


class OutputBudget(Value):
    """One output of an approximation over all probes."""

    output: str
    snr_db: float | None
    """On the worst probe; None for integers, and where there is no difference."""
    top1: float | None
    """Over the rows of all probes; None for an output of one value a row."""
    passed: bool


class BudgetReport(Value):
    """An approximation held to its budget."""

    snr_db: float
    top1: float
    default: bool
    """Whether the request named none."""
    outputs: tuple[OutputBudget, ...]


class GateConstants(Value):
    """Constants of the gate; source: docs/verification.md, "The gate"."""

    K: float
    c: float
    u: float


class VerificationReport(Value):
    verdict: Verdict
    findings: tuple[Finding, ...]
    mode: Literal["full", "certified", "budget"]
    """budget: of an approximation, whose exact form was verified in a report of its own (``derived_from``)."""
    gate: GateConstants
    oracle: Literal["fp64", "fp32-reordered"]
    probes: tuple[ProbeResult, ...] = ()
    dims: tuple[AxisCertificate, ...] = ()
    decisions: tuple[Decision, ...] = ()
    deterministic: bool | None = None
    eval_mode: bool | None = None
    sensitivity: Sensitivity | None = None
    detection: Detection | None = None
    matrix: Matrix | None = None
    ledger: Ledger | None = None
    budget: BudgetReport | None = None
    departure: Departure | None = None
    latency: Latency | None = None
    timings: dict[str, float] = Field(default_factory=dict)
    not_run: dict[str, str] = Field(default_factory=dict)
    """Parts that were left out or could not be brought to an end, with the reason. None of them decides a verdict."""

    @property
    def worst_ratio(self) -> float | None:
        """error / gate of the output nearest to it or farthest outside; None where nothing was compared."""
        return max((probe.worst_ratio for probe in self.probes if probe.outputs), default=None)


# --- the whole -----------------------------------------------------------------------------------------------------


class ProducedFile(Value):
    """A file of a conversion, as content."""

    role: Literal["artifact", "artifact_data", "report", "golden", "selfcheck", "statement"]
    filename: str = Field(max_length=255)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)
    media_type: str = Field(max_length=100)


class Derivation(Value):
    """What an approximation was made of: the same model in the model's own precision, verified as any artifact is."""

    bytes: int
    sha256: str
    export: ExportReport
    verification: VerificationReport


class ConversionReport(Value):
    version: int = REPORT_VERSION
    conversion_id: str
    created_at: str
    architecture: str
    architecture_options: dict[str, Any] = Field(default_factory=dict)
    family: str
    library: str
    library_version: str
    signature: Signature | None = None
    """What the artifact takes and gives, with the given options; None in reports of earlier versions."""
    target: TargetName
    options: dict[str, Any] = Field(default_factory=dict)
    checkpoint_sha256: str
    checkpoint_filename: str | None = None
    checkpoint: CheckpointInspection
    load: LoadReport
    parameters: ParameterReport
    export: ExportReport
    verification: VerificationReport
    derived_from: Derivation | None = None
    artifact: ProducedFile
    artifact_data: ProducedFile | None = None
    problem: Problem | None = None
    timings: dict[str, float] = Field(default_factory=dict)
    """Seconds of each stage, by stage name."""
    environment: dict[str, str] = Field(default_factory=dict)
    peak_memory_bytes: int | None = None
