"""What each reason of a verdict means to a reader, and what to do about it: the one table of their words.

In the order in which causes come before what follows from them, so that the first that is found is told first.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from app.domain.report import Reason


@dataclass(frozen=True)
class Words:
    """``title`` says what is the matter, ``remedy`` what to do; "" where nothing needs to be done."""

    title: str
    remedy: str


REASONS: Mapping[Reason, Words] = {
    Reason.non_finite_weights: Words(
        "Some uploaded weights are NaN or infinite",
        "Check the checkpoint: the training may have diverged before it was saved.",
    ),
    Reason.non_finite: Words(
        "Outputs hold NaN or infinity",
        "Check the weights: the model itself gives such values, so the training may have diverged.",
    ),
    Reason.training_mode: Words(
        "Something is in training mode", "Take out of the architecture what switches train() on in its forward."
    ),
    Reason.unloaded_weights: Words(
        "Parts of the model that act on its outputs are not from the checkpoint",
        "Upload the complete checkpoint, or give the option of the architecture that makes it fit, such as "
        "num_classes; name in allow_missing what is meant to keep its initial value.",
    ),
    Reason.nondeterministic: Words(
        "The model gives different outputs for the same input", "Take the randomness out of forward."
    ),
    Reason.ledger: Words(
        "The artifact does not carry exactly the uploaded weights", "Report it: this is a fault of the conversion."
    ),
    Reason.attributes: Words(
        "A constant of the graph is not one that the model uses",
        "Try the other exporter, and report it: this is a fault of the conversion.",
    ),
    Reason.checker: Words("The file breaks the rules of its format", "Try the other exporter or another opset."),
    Reason.runtime: Words("The runtime cannot load or run the file", "Try another opset or the other exporter."),
    Reason.opset: Words(
        "The file does not have the opset that was asked for", "Report it: this is a fault of the conversion."
    ),
    Reason.output_structure: Words(
        "Outputs differ in number, name, shape or type", "Try the other exporter, or name the outputs yourself."
    ),
    Reason.dims: Words(
        "Wrong or failing at other sizes of a dynamic axis",
        "Ask for fewer dynamic axes (dynamic_axes), or change the code that fixes the size.",
    ),
    Reason.parity: Words(
        "The artifact computes something else than the model",
        "Try the other exporter; the first module that departs, and the link of the chain at fault, are named below.",
    ),
    Reason.check_failed: Words(
        "A check of the verification could not be carried out", "Report it, with the traceback in the service's log."
    ),
    Reason.insensitive: Words(
        "The outputs hardly depend on the inputs, so that parity proves little",
        "See whether these are the right weights and whether the head was trained.",
    ),
    Reason.shape_specialised: Words(
        "The graph is fixed to the shape it was exported with", "Declare the axis static (dynamic_axes)."
    ),
    Reason.frozen_values: Words(
        "The model's code decides on values of its inputs, of which a trace keeps one case",
        "Use method=script, exporter=dynamo, or torch.where in the code; ignore it if the code only checks its inputs.",
    ),
    Reason.assumed_sizes: Words(
        "The graph was made for fewer sizes of an axis than are declared",
        "Keep to the sizes that are named, or make the code one that can be compiled (method=script).",
    ),
    Reason.mismatch_accepted: Words(
        "A mismatch was accepted because on_mismatch=warn", "Do not use the file before you have read what differs."
    ),
    Reason.not_strict: Words("Not every tensor came from the checkpoint, or not every uploaded one was used", ""),
    Reason.constant_output: Words("An output is the same whatever the inputs", ""),
    Reason.oracle_unavailable: Words("No double-precision reference; a reordered single-precision one was used", ""),
    Reason.blind_layers: Words(
        "The probes would not notice a fault in some layers; the ledger covers them",
        "Send probes of your own (probes), of the kind that the model will see.",
    ),
    Reason.unused_tensors: Words("Some uploaded tensors are not used by the architecture", ""),
    Reason.static_axis: Words("An axis is fixed", ""),
    Reason.trace_warnings: Words(
        "The tracer warned", "Prefer method=script, or send probes that take both ways of the code."
    ),
    Reason.unfollowed_code: Words(
        "The model's code was not followed to its end", "Send probes at the sizes and of the kinds that you use."
    ),
    Reason.export_branch: Words(
        "The model's code takes another way while it is exported", "Make sure that this is meant."
    ),
    Reason.fused_attention: Words(
        "PyTorch's fused attention gives other values than the plain operators of the file",
        "Compare with torch.backends.mha.set_fastpath_enabled(False), or at places without padding only.",
    ),
    Reason.template_discarded: Words("A stored graph did not fit and was not used", ""),
}
