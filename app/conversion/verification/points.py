"""The points of a verification, each adding what it finds to the evidence. verify.py gives their order."""

from collections.abc import Mapping

import torch

from app.conversion.verification import audit, dims, mode, onnx_graph
from app.conversion.verification.detection import detection
from app.conversion.verification.determinism import repeat
from app.conversion.verification.evidence import Evidence
from app.conversion.verification.export_branch import differing_operators, stress
from app.conversion.verification.latency import latency
from app.conversion.verification.ledger import onnx_ledger, torchscript_ledger
from app.conversion.verification.localise import departure
from app.conversion.verification.matrix import parity_matrix
from app.conversion.verification.oracle import ModelFailed, Reference, eager, reference
from app.conversion.verification.parity import Comparison, compare
from app.conversion.verification.probes import (
    Probe,
    draw_certified_probe,
    draw_probe,
    draw_probes,
    latin_sizes,
    read_client_probes,
    sample_sizes,
)
from app.conversion.verification.protobuf_wire import MalformedFile
from app.conversion.verification.runtime import ArtifactRefused, TorchScriptRuntime, open_artifact
from app.conversion.verification.sensitivity import sensitivity, sensitivity_findings
from app.conversion.verification.subject import Subject
from app.conversion.verification.verdict import failure, inconclusive, note
from app.domain.report import Ledger, ProbeResult, Reason

LEAST_POWER = 0.5
"""Detection power below which the report warns that parity says little about these weights."""
FROZEN_BRANCH = "Converting a tensor to a Python"
"""What torch.jit's tracer says when Python decides on a value: the graph keeps the way that the sample took."""


def check_file(evidence: Evidence) -> None:
    """Point 11: onnx.checker with full shape inference on the final bytes."""
    if evidence.subject.target == "onnx":
        complaint = onnx_graph.check_file(evidence.subject.artifact)
        if complaint is not None:
            evidence.findings.append(failure(Reason.checker, complaint[:600]))


def check_history(evidence: Evidence) -> None:
    """What load and export said: parts left out under strict=false, weights not finite, branches frozen by a trace."""
    frozen = [warning for warning in evidence.subject.export.warnings if FROZEN_BRANCH in warning]
    if frozen:
        evidence.findings.append(note(Reason.trace_warnings, "; ".join(frozen[:3])))
    load = evidence.subject.load
    left_out = [*load.missing_keys, *load.unexpected_keys, *load.ignored_keys, *load.shape_mismatches]
    if not load.strict and left_out:
        missing = len(load.missing_keys)
        detail = f"{missing} keys of the model are missing, {len(left_out) - missing} uploaded ones were left out: "
        evidence.findings.append(note(Reason.not_strict, detail + ", ".join(left_out[:5])))
    bad = [name for name, tensor in evidence.subject.uploaded.items() if not _finite(tensor)]
    if bad:
        detail = f"{len(bad)} uploaded tensors hold NaN or infinity: {', '.join(bad[:5])}"
        evidence.findings.append(note(Reason.non_finite_weights, detail))


def _finite(tensor: torch.Tensor) -> bool:
    """One pass over the memory: the sum is finite unless an element is not, or it overflows: a second look tells."""
    if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.numel() == 0:
        return True
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())


def take_references(evidence: Evidence, probes: list[Probe]) -> None:
    """Points 1 and 3: the eager module in its own dtype and in float64 on every probe."""
    with evidence.clock.part("oracle"):
        for probe in probes:
            taken = _reference(evidence, probe)
            if taken is None:
                continue
            if taken.finite:
                evidence.references.append(taken)
            elif probe.name.endswith("scale"):
                evidence.skipped.append(_skipped(probe, "the model's own outputs are not finite at this scale"))
            else:
                detail = f"the model's own outputs hold NaN or infinity on {probe.name}"
                evidence.findings.append(failure(Reason.non_finite, detail))
    for taken in evidence.references[:1]:
        if taken.kind != "fp64":
            evidence.findings.append(note(Reason.oracle_unavailable, "; ".join(taken.detours)))


def _reference(evidence: Evidence, probe: Probe) -> Reference | None:
    subject = evidence.subject
    try:
        return reference(subject.module, subject.signature, probe)
    except ModelFailed as failed:
        exported = sample_sizes(subject.signature)
        if probe.seed is None or probe.sizes == exported:
            detail = f"the model does not run on {probe.name} at {probe.sizes}: {failed}"
            evidence.findings.append(inconclusive(Reason.shape_specialised, detail))
            return None
    # The dims certificate says that the model fails at those sizes; the draw is still worth having at the exported.
    return _reference(evidence, draw_probe(subject.signature, exported, probe.seed, name=probe.name))


def _skipped(probe: Probe, reason: str) -> ProbeResult:
    return ProbeResult(probe=probe.name, seed=probe.seed, sizes=probe.sizes, passed=True, reason=f"skipped: {reason}")


def full_probes(evidence: Evidence) -> list[Probe]:
    """The draws of a full verification, then the client's own. Raises InvalidOptions for probes that do not fit."""
    subject = evidence.subject
    probes = draw_probes(subject.signature, subject.seed)
    if subject.client_probes is not None:
        probes += read_client_probes(subject.client_probes, subject.signature)
    return probes


def certified_probes(evidence: Evidence) -> list[Probe]:
    """The one draw of a certified verification."""
    return [draw_certified_probe(evidence.subject.signature, evidence.subject.seed)]


def load_artifact(evidence: Evidence) -> None:
    """Point 11: the artifact from its final bytes, in a session of its own."""
    subject = evidence.subject
    with evidence.clock.part("session"):
        try:
            evidence.runner = open_artifact(
                subject.target, subject.artifact, subject.module, subject.signature, threads=subject.threads
            )
        except ArtifactRefused as refusal:
            evidence.findings.append(failure(Reason.runtime, f"the runtime refuses the artifact: {refusal}"))


def check_repeatable(evidence: Evidence) -> None:
    """Point 5: the same input twice."""
    subject = evidence.subject
    if evidence.runner is None or not evidence.references:
        return
    with evidence.clock.part("determinism"):
        cheapest = min(evidence.references, key=lambda r: sum(v.numel() for v in r.probe.inputs.values()))
        evidence.repeat = repeat(subject.module, subject.signature, evidence.runner, cheapest)
    if not evidence.repeat.model:
        detail = "the model itself answers the same input differently each time, so nothing can be compared with it"
        evidence.findings.append(inconclusive(Reason.nondeterministic, detail))
    elif not evidence.repeat.artifact:
        evidence.findings.append(failure(Reason.parity, "the artifact answers the same input differently each time"))


def check_parity(evidence: Evidence) -> None:
    """Point 2: every output of every probe inside its gate."""
    if evidence.runner is None:
        return
    by_order = evidence.subject.target == "torchscript"
    with evidence.clock.part("parity"):
        evidence.compared += [compare(evidence.runner, r, by_order=by_order) for r in evidence.references]
    for comparison in evidence.compared:
        if comparison.failure is not None:
            detail = f"{comparison.result.probe} at {comparison.result.sizes}: {comparison.result.reason}"
            evidence.findings.append(failure(comparison.failure, detail))


def check_export_branch(evidence: Evidence) -> None:
    """Point 3: where the model takes another way while it is exported, both must agree on inputs of many scales."""
    subject = evidence.subject
    if evidence.runner is None or not evidence.references or evidence.failed or subject.target != "onnx":
        return
    cheapest = min(evidence.references, key=lambda r: r.trace.operations)
    with evidence.clock.part("export_branch"):
        differing = differing_operators(subject.module, subject.signature, cheapest)
        if differing is None:
            return
        stressed = stress(subject.module, subject.signature, evidence.runner, cheapest, subject.seed)
        failed = next((comparison.result for comparison in stressed if comparison.failure), None)
    listed = ", ".join(f"{name} × {count}" for name, count in differing.most_common(5))
    detail = f"while it is exported to ONNX, the model takes another way (operators that differ: {listed})"
    if failed is not None:
        evidence.findings.append(failure(Reason.parity, f"{detail}; {failed.probe}: {failed.reason}"))
    else:
        evidence.findings.append(note(Reason.export_branch, f"{detail}; both agree on inputs of all scales tried"))


def check_dims(evidence: Evidence) -> None:
    """Point 4: every axis that was asked to be dynamic, read back and executed."""
    subject = evidence.subject
    if evidence.runner is None or not evidence.references:
        return
    runner = evidence.runner

    def trial(sizes: Mapping[str, int]) -> Comparison:
        probe = draw_probe(subject.signature, sizes, subject.seed)
        taken = reference(subject.module, subject.signature, probe)
        return compare(runner, taken, by_order=subject.target == "torchscript")

    with evidence.clock.part("dims"):
        outcomes = dims.try_axes(subject.signature, evidence.compared, trial)
        written = None
        if subject.target == "onnx":
            written = onnx_graph.input_axes(onnx_graph.read_graph(subject.artifact))
        evidence.dims = dims.certify(subject.signature, outcomes, written, subject.declared)
    evidence.findings += dims.dims_findings(evidence.dims, outcomes)


def audit_modes_and_attributes(evidence: Evidence) -> None:
    """Point 6: eval mode on both sides, the opset that the report claims, and constants that parity may not see."""
    if evidence.runner is None:
        return
    with evidence.clock.part("audit"):
        training = mode.modules_in_training(evidence.subject.module)
        if isinstance(evidence.runner, TorchScriptRuntime):
            nodes = mode.torchscript_training_nodes(evidence.runner.loaded)
            graph = audit.torchscript_constants(evidence.runner.loaded)
        else:
            nodes, graph = _audit_onnx(evidence)
        evidence.eval_mode = not training and not nodes
        if not evidence.eval_mode:
            detail = f"in training mode: {', '.join([*(name or '(the model)' for name in training), *nodes][:5])}"
            evidence.findings.append(failure(Reason.training_mode, detail))
        traced = next((r.trace for r in evidence.references if r.trace.operations), None)
        if traced is not None:
            evidence.findings += [failure(Reason.attributes, complaint) for complaint in audit.audit(traced, graph)]


def _audit_onnx(evidence: Evidence) -> tuple[list[str], audit.GraphConstants]:
    model = onnx_graph.read_graph(evidence.subject.artifact)
    export = evidence.subject.export
    for name, claimed, found in (
        ("opset", export.opset, onnx_graph.opset_of(model)),
        ("IR version", export.ir_version, model.ir_version),
    ):
        if claimed is not None and claimed != found:
            evidence.findings.append(failure(Reason.opset, f"the file has {name} {found}, {claimed} was claimed"))
    return mode.onnx_training_nodes(model), audit.onnx_constants(model)


def check_sensitivity(evidence: Evidence) -> None:
    """Point 7: the probes move the outputs. A single probe is compared with one more eager run."""
    with evidence.clock.part("sensitivity"):
        references = list(evidence.references)
        if len(references) == 1:
            references += _another(evidence, references[0])
        if len(references) < 2:
            return
        evidence.sensitivity = sensitivity(references)
    evidence.findings += sensitivity_findings(evidence.sensitivity)


def _another(evidence: Evidence, first: Reference) -> list[Reference]:
    """One more draw in the model's own dtype only; its float64 values are those widened, its gate the first one's."""
    subject = evidence.subject
    sizes = latin_sizes(subject.signature, 0)
    probe = draw_probe(subject.signature, sizes, subject.seed + 1)
    try:
        y32 = eager(subject.module, subject.signature, probe.inputs)
    except ModelFailed:
        return []
    wide = {name: value.double() if value.is_floating_point() else value for name, value in y32.items()}
    return [Reference(probe, y32, wide, first.kind, first.trace)]


def check_ledger(evidence: Evidence) -> None:
    """Point 9: where every uploaded tensor went, and where every tensor of the artifact came from."""
    subject = evidence.subject
    with evidence.clock.part("ledger"):
        try:
            evidence.ledger = _ledger(subject)
        except MalformedFile as malformed:
            evidence.findings.append(failure(Reason.ledger, f"the artifact's tensors cannot be read: {malformed}"))
            return
    if not evidence.ledger.passed:
        detail = "; ".join(evidence.ledger.problems[:3]) or "the books do not balance"
        evidence.findings.append(failure(Reason.ledger, detail))
    unused = [e.tensor for e in evidence.ledger.entries if e.ledger_class == "unused" and not _is_counter(e.tensor)]
    if unused:
        detail = f"{len(unused)} uploaded tensors are not used by the model: {', '.join(unused[:5])}"
        evidence.findings.append(note(Reason.unused_tensors, detail))


def _ledger(subject: Subject) -> Ledger:
    if subject.target == "onnx":
        return onnx_ledger(
            subject.artifact,
            subject.uploaded,
            subject.load,
            subject.module,
            subject.origins,
            signature=subject.signature,
        )
    return torchscript_ledger(
        subject.artifact, subject.uploaded, subject.load, subject.module, signature=subject.signature
    )


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def measure_detection(evidence: Evidence) -> None:
    """Point 8: what share of weight faults the probes alone would have seen, and which layers they are blind to."""
    subject = evidence.subject
    if not evidence.references or evidence.failed:
        return
    with evidence.clock.part("detection"):
        evidence.detection = detection(subject.module, subject.signature, evidence.references, subject.seed)
    measured = evidence.detection
    if measured is not None and measured.power < LEAST_POWER:
        detail = (
            f"the probes would see {measured.power:.0%} of weight faults and none in "
            f"{', '.join(measured.blind_layers[:5])}; that the weights are right rests on the ledger"
        )
        evidence.findings.append(note(Reason.blind_layers, detail))


def fill_matrix(evidence: Evidence) -> None:
    """The parity matrix: ways to compute the same outputs, on the worst probe of a failure, else on the cheapest."""
    if not evidence.compared:
        return
    pairs = list(zip(evidence.references, evidence.compared, strict=True))
    failed = [pair for pair in pairs if not pair[1].result.passed]
    taken, delivered = failed[0] if failed else min(pairs, key=lambda pair: pair[0].trace.operations)
    with evidence.clock.part("matrix"):
        evidence.matrix = parity_matrix(evidence.subject, taken, delivered)


def measure_latency(evidence: Evidence) -> None:
    """Latency: p50 and p95 of both sides at the exported sizes."""
    subject = evidence.subject
    if evidence.runner is None or evidence.failed or not evidence.references:
        return
    exported = sample_sizes(subject.signature)
    probe = next((r.probe for r in evidence.references if r.probe.sizes == exported), evidence.references[0].probe)
    with evidence.clock.part("latency"):
        evidence.latency = latency(subject.module, subject.signature, evidence.runner, probe)


def localise(evidence: Evidence) -> None:
    """Point 13: on a failed parity, the first module that departs."""
    if evidence.runner is None:
        return
    departing = [
        reference
        for reference, comparison in zip(evidence.references, evidence.compared, strict=True)
        if comparison.failure is Reason.parity
    ]
    if departing:
        with evidence.clock.part("localise"):
            evidence.departure = departure(evidence.subject, departing[0], evidence.runner)
