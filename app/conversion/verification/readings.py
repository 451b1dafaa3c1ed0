"""The points of a verification that read the artifact's bytes and what earlier stages said of it.

verify.py gives their order, docs/verification.md their reasons.
"""

from collections.abc import Sequence

import torch

from app.conversion.verification import audit
from app.conversion.verification.evidence import Evidence
from app.conversion.verification.ledger.ledger import ledger_of
from app.conversion.verification.subject import Subject
from app.domain.reasons import finding_of
from app.domain.report import Ledger, Reason
from app.targets.artifact import MalformedFile


def check_file(evidence: Evidence) -> None:
    """Point 11: the format's own checker (onnx.checker with full shape inference) on the final bytes."""
    with evidence.clock.part("checker"):
        complaint = evidence.subject.reader.complaint(evidence.subject.artifact)
    if complaint is not None:
        evidence.findings.append(finding_of(Reason.checker, complaint[:600]))


def check_history(evidence: Evidence) -> None:
    """What load said: parts left out under strict=false, weights not finite."""
    load = evidence.subject.load
    if load.unloaded_keys:
        detail = f"{len(load.unloaded_keys)} tensors that act on the outputs have initial values: "
        evidence.findings.append(
            finding_of(Reason.unloaded_weights, detail + _listed(load.unloaded_keys) + f". {load.hint or ''}".rstrip())
        )
    if load.missing_keys or load.ignored_keys:
        missing, left_out = len(load.missing_keys), len(load.ignored_keys)
        detail = f"{missing} keys of the model are missing, {left_out} uploaded ones were left out: "
        evidence.findings.append(
            finding_of(Reason.not_strict, detail + _listed((*load.missing_keys, *load.ignored_keys)))
        )
    with evidence.clock.part("finite_weights"):
        bad = [name for name, tensor in evidence.subject.uploaded.items() if not _finite(tensor)]
    if bad:
        detail = f"{len(bad)} uploaded tensors hold NaN or infinity: {', '.join(bad[:5])}"
        evidence.findings.append(finding_of(Reason.non_finite_weights, detail))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _finite(tensor: torch.Tensor) -> bool:
    """One pass over the memory: the sum is finite unless an element is not, or it overflows: a second look tells."""
    if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.numel() == 0:
        return True
    if tensor.dtype.itemsize == 1:  # torch has no sum of 8-bit floats
        tensor = tensor.float()
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())


def audit_modes_and_attributes(evidence: Evidence) -> None:
    """Point 6: eval mode on both sides, the opset that the report claims, and constants that parity may not see.

    A training flag alone is no fault: the eager module in eval mode sets it too where a batch norm keeps no statistics
    and where a dropout drops nothing.
    """
    if evidence.runner is None:
        return
    with evidence.clock.part("audit"):
        training = [name or "(the model)" for name, part in evidence.subject.module.named_modules() if part.training]
        training += evidence.facts.training
        evidence.eval_mode = not training
        if training:
            evidence.findings.append(finding_of(Reason.training_mode, f"in training mode: {', '.join(training[:5])}"))
        _check_versions(evidence)
        traced = next((r.trace for r in evidence.references if r.trace.operations), None)
        constants = evidence.facts.constants
        if traced is not None and constants is not None:
            half = evidence.subject.coarseness > 1
            evidence.findings += [
                finding_of(Reason.attributes, complaint) for complaint in audit.audit(traced, constants, half=half)
            ]


def _check_versions(evidence: Evidence) -> None:
    export, facts = evidence.subject.export, evidence.facts
    for name, claimed, found in (
        ("opset", export.opset, facts.opset),
        ("IR version", export.ir_version, facts.ir_version),
    ):
        if claimed is not None and claimed != found:
            evidence.findings.append(finding_of(Reason.opset, f"the file has {name} {found}, {claimed} was claimed"))


def check_ledger(evidence: Evidence, *, certified: bool = False) -> None:
    """Point 9: where every uploaded tensor went, and where every tensor of the artifact came from."""
    subject = evidence.subject
    with evidence.clock.part("ledger"):
        try:
            evidence.ledger = _ledger(subject, certified=certified)
        except MalformedFile as malformed:
            evidence.findings.append(finding_of(Reason.ledger, f"the artifact's tensors cannot be read: {malformed}"))
            return
    if not evidence.ledger.passed:
        detail = "; ".join(evidence.ledger.problems[:3]) or "the books do not balance"
        evidence.findings.append(finding_of(Reason.ledger, detail))
    unused = [e.tensor for e in evidence.ledger.entries if e.ledger_class == "unused" and not _is_counter(e.tensor)]
    if unused:
        detail = f"{len(unused)} uploaded tensors are not used by the model: {', '.join(unused[:5])}"
        evidence.findings.append(finding_of(Reason.unused_tensors, detail))


def _ledger(subject: Subject, *, certified: bool = False) -> Ledger:
    return ledger_of(
        subject.reader.tensors(subject.artifact),
        subject.claims,
        uploaded=subject.uploaded,
        load=subject.load,
        module=subject.module,
        signature=subject.signature,
        certified=certified,
    )


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")
