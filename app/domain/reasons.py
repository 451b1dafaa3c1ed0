"""Everything that is known of each reason of a verdict: the one table from which verdict, problem, pages and docs come.

In the order in which causes come before what follows from them, so that the first that is found is told first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from app.domain.errors import (
    DimsFailed,
    LedgerFailed,
    NonFinite,
    OverBudget,
    ParityFailed,
    RecastError,
    UnsupportedOpset,
)
from app.domain.report import Finding, Reason, Severity


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What follows where a reason is found.

    ``title`` says what is the matter, ``remedy`` what to do; "" where nothing needs to be done.
    """

    severity: Severity
    title: str
    remedy: str = ""
    error: type[RecastError] = ParityFailed
    """Ends the conversion, where this is the first reason why its verdict is fail."""
    compared: bool = False
    """Whether it rests on comparing values with a model that must answer the same twice."""
    lies_in: Literal["model", "capture", "file", "weights"] | None = None
    """model: with these weights, so no other exporter can help. capture: another exporter may leave no doubt.
    file: it cannot be run, as one whose opset lacks an operator. weights: with others, graph and model may part."""


def finding_of(reason: Reason, detail: str) -> Finding:
    """What was found, with the severity that the reason has."""
    return Finding(reason=reason, severity=REASONS[reason].severity, detail=detail)


def rests_in(place: str, reason: Reason) -> bool:
    """Whether the reason lies in that part of the conversion."""
    return REASONS[reason].lies_in == place


REASONS: Mapping[Reason, Rule] = {
    Reason.non_finite_weights: Rule(
        severity="note",
        title="Some uploaded weights are NaN or infinite",
        remedy="Check the checkpoint: the training may have diverged before it was saved.",
    ),
    Reason.non_finite: Rule(
        severity="fail",
        title="Outputs hold NaN or infinity",
        remedy="Check the weights: the model itself gives such values, so the training may have diverged.",
        error=NonFinite,
        lies_in="model",
    ),
    Reason.training_mode: Rule(
        severity="fail",
        title="Something is in training mode",
        remedy="Take out of the architecture what switches train() on in its forward.",
    ),
    Reason.unloaded_weights: Rule(
        severity="inconclusive",
        title="Parts of the model that act on its outputs are not from the checkpoint",
        remedy="Upload the complete checkpoint, or give the option of the architecture that makes it fit, such as "
        "num_classes; name in allow_missing what is meant to keep its initial value.",
    ),
    Reason.over_budget: Rule(
        severity="fail",
        title="The approximation lies farther from the model than its budget admits",
        remedy="Use fp16 or fp32, or give a budget that your use can bear; the report names the layers that lose most.",
        error=OverBudget,
        compared=True,
    ),
    Reason.nondeterministic: Rule(
        severity="inconclusive",
        title="The model gives different outputs for the same input, or as it was called before",
        remedy="Take the randomness, or what it remembers of earlier calls, out of forward.",
    ),
    Reason.ledger: Rule(
        severity="fail",
        title="The artifact does not carry exactly the uploaded weights",
        remedy="Report it: this is a fault of the conversion.",
        error=LedgerFailed,
    ),
    Reason.attributes: Rule(
        severity="fail",
        title="A constant of the graph is not one that the model uses",
        remedy="Try the other exporter, and report it: this is a fault of the conversion.",
    ),
    Reason.checker: Rule(
        severity="fail",
        title="The file breaks the rules of its format",
        remedy="Try the other exporter or another opset.",
        lies_in="file",
    ),
    Reason.runtime: Rule(
        severity="fail",
        title="The runtime cannot load or run the file",
        remedy="Try another opset or the other exporter.",
        lies_in="file",
    ),
    Reason.opset: Rule(
        severity="fail",
        title="The file does not have the opset that was asked for",
        remedy="Report it: this is a fault of the conversion.",
        error=UnsupportedOpset,
    ),
    Reason.output_structure: Rule(
        severity="fail",
        title="Outputs differ in number, name, shape or type",
        remedy="Try the other exporter, or name the outputs yourself.",
    ),
    Reason.dims: Rule(
        severity="fail",
        title="Wrong or failing at other sizes of a dynamic axis",
        remedy="Ask for fewer dynamic axes (dynamic_axes), or change the code that fixes the size.",
        error=DimsFailed,
        compared=True,
    ),
    Reason.parity: Rule(
        severity="fail",
        title="The artifact computes something else than the model",
        remedy="Try the other exporter; the report names the first module that departs and the link at fault.",
        compared=True,
    ),
    Reason.check_failed: Rule(
        severity="fail",
        title="A check of the verification could not be carried out",
        remedy="Report it, with the traceback in the service's log.",
    ),
    Reason.insensitive: Rule(
        severity="inconclusive",
        title="The outputs hardly depend on the inputs, so that parity proves little",
        remedy="See whether these are the right weights and whether the head was trained.",
    ),
    Reason.shape_specialised: Rule(
        severity="inconclusive",
        title="The graph is fixed to the shape it was exported with",
        remedy="Declare the axis static (dynamic_axes).",
    ),
    Reason.frozen_values: Rule(
        severity="inconclusive",
        title="The model's code decides on values of its inputs, of which a trace keeps one case",
        remedy="Use method=script, exporter=dynamo, or torch.where in the code; ignore it if the code only checks its "
        "inputs.",
        lies_in="capture",
    ),
    Reason.assumed_sizes: Rule(
        severity="inconclusive",
        title="The graph was made for fewer sizes of an axis than are declared",
        remedy="Keep to the sizes that are named, or make the code one that can be compiled (method=script).",
        lies_in="capture",
    ),
    Reason.mismatch_accepted: Rule(
        severity="note",
        title="A mismatch was accepted because on_mismatch=warn",
        remedy="Do not use the file before you have read what differs.",
    ),
    Reason.not_strict: Rule(
        severity="note",
        title="Not every tensor came from the checkpoint, or not every uploaded one was used",
    ),
    Reason.constant_output: Rule(
        severity="note",
        title="An output is the same whatever the inputs",
    ),
    Reason.oracle_unavailable: Rule(
        severity="note",
        title="No double-precision reference; a reordered single-precision one was used",
    ),
    Reason.blind_layers: Rule(
        severity="note",
        title="The probes would not notice a fault in some layers; the ledger covers them",
        remedy="Send probes of your own (probes), of the kind that the model will see.",
    ),
    Reason.unused_tensors: Rule(
        severity="note",
        title="Some uploaded tensors are not used by the architecture",
    ),
    Reason.static_axis: Rule(
        severity="note",
        title="An axis is fixed",
    ),
    Reason.trace_warnings: Rule(
        severity="note",
        title="The tracer warned",
        remedy="Prefer method=script, or send probes that take both ways of the code.",
    ),
    Reason.unfollowed_code: Rule(
        severity="note",
        title="The model's code was not followed to its end",
        remedy="Send probes at the sizes and of the kinds that you use.",
    ),
    Reason.export_branch: Rule(
        severity="note",
        title="The model's code takes another way while it is exported",
        remedy="Make sure that this is meant.",
        lies_in="weights",
    ),
    Reason.export_branch_on_integers: Rule(
        severity="note",
        title="The model's code makes its masks or positions another way while it is exported",
        remedy="Nothing is needed where this is the library's own code; else make sure that it is meant.",
    ),
    Reason.fused_attention: Rule(
        severity="note",
        title="PyTorch's fused attention gives other values than the plain operators of the file",
        remedy="Compare with torch.backends.mha.set_fastpath_enabled(False), or at places without padding only.",
    ),
    Reason.tied_choices: Rule(
        severity="note",
        title="Of several elements whose scores tie the artifact points at another",
        remedy="Read such an index as one of the best; add what decides between equals to the model where it matters.",
    ),
    Reason.template_discarded: Rule(
        severity="note",
        title="A stored graph did not fit and was not used",
    ),
}
