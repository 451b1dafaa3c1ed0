"""Package a conversion: the report and the files that go with the artifact."""

import hashlib
import platform
import resource
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.conversion.candidates import Workpiece
from app.conversion.job import ConversionOutcome
from app.conversion.production import Produced
from app.domain.errors import Problem
from app.domain.produced_files import artifact_stem
from app.domain.reasons import REASONS, finding_of
from app.domain.report import ConversionReport, Finding, ProducedFile, Reason, TemplateUse, Verdict, VerificationReport
from app.domain.versions import PACKAGE, library_versions, service_version
from app.targets import selfcheck
from app.targets.onnx.writing.fill import WrittenFile
from app.targets.request import signature_of_file
from app.targets.specs import SPECS


def package(work: Workpiece, produced: Produced, timings: Mapping[str, float]) -> ConversionOutcome:
    """Write report.json, golden.npz and check.py beside the artifact in ``work_dir`` and name all files."""
    directory = work.job.work_dir
    spec = SPECS[work.job.options.target]
    stem = artifact_stem(work.job.architecture)
    artifact = _artifact(produced.candidate.written, directory / f"{stem}{spec.suffix}", spec.media_type)
    data = _artifact_data(produced.candidate.written, directory, stem)
    golden = _golden(produced.golden, directory / "golden.npz")
    (directory / "check.py").write_bytes(selfcheck.script())
    verification = _with_policy(produced.verification, produced.template_use, work.job.options.on_mismatch)
    problem = _problem(verification) if work.job.options.on_mismatch == "fail" else None
    export = produced.candidate.export.model_copy(update={"rungs": produced.rungs, "template": produced.template_use})
    report = ConversionReport(
        **_facts_of_the_job(work),
        checkpoint=work.inspection,
        load=work.loaded.report,
        parameters=work.loaded.parameters,
        export=export,
        verification=verification,
        derived_from=produced.derived_from,
        artifact=artifact,
        artifact_data=data,
        problem=problem,
        timings=dict(timings),
        environment=_environment(),
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 + produced.memory_beside,
    )
    (directory / "report.json").write_text(report.model_dump_json())
    further = (
        _hashed("selfcheck", directory / "check.py", "text/x-python"),
        _hashed("report", directory / "report.json", "application/json"),
    )
    return ConversionOutcome(
        report=report,
        files=(artifact, *filter(None, (data, golden)), *further),
        problem=problem,
        template=produced.template,
        discarded_template=produced.discarded,
    )


def _artifact(written: WrittenFile, path: Path, media_type: str) -> ProducedFile:
    written.path.rename(path)
    return ProducedFile(
        role="artifact", filename=path.name, sha256=written.sha256, bytes=written.bytes, media_type=media_type
    )


def _artifact_data(main: WrittenFile, directory: Path, stem: str) -> ProducedFile | None:
    """A side file that is called like the artifact, but for its suffix, is found by that and renamed with it."""
    written = main.data
    if written is None:
        return None
    name = f"{stem}{written.path.suffix}" if written.path.stem == main.path.stem else written.path.name
    written.path.rename(directory / name)
    return ProducedFile(
        role="artifact_data",
        filename=name,
        sha256=written.sha256,
        bytes=written.bytes,
        media_type="application/octet-stream",
    )


def _golden(content: bytes | None, path: Path) -> ProducedFile | None:
    if content is None:
        return None
    path.write_bytes(content)
    return _hashed("golden", path, "application/octet-stream")


def _hashed(role: str, path: Path, media_type: str) -> ProducedFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ProducedFile.model_validate(
        {
            "role": role,
            "filename": path.name,
            "sha256": digest,
            "bytes": path.stat().st_size,
            "media_type": media_type,
        }
    )


def _with_policy(verification: VerificationReport, use: TemplateUse, on_mismatch: str) -> VerificationReport:
    notes = []
    if use.state == "discarded":
        notes.append(finding_of(Reason.template_discarded, use.reason or ""))
    if verification.verdict is Verdict.fail and on_mismatch == "warn":
        told = "The artifact FAILED verification and is delivered only because on_mismatch=warn asked for it."
        notes.append(finding_of(Reason.mismatch_accepted, told))
    if not notes:
        return verification
    verdict = Verdict.pass_with_notes if verification.verdict is Verdict.passed else verification.verdict
    return verification.model_copy(update={"findings": (*verification.findings, *notes), "verdict": verdict})


def _problem(verification: VerificationReport) -> Problem | None:
    if verification.verdict is not Verdict.fail:
        return None
    failures = [finding for finding in verification.findings if finding.severity == "fail"]
    error = REASONS[failures[0].reason].error
    hint = "Read the report: it names what departs. The file itself can be had with ?unverified=true."
    reasons = [finding.reason.value for finding in failures]
    detail = " ".join(_sentences(verification.findings))
    return error(detail, hint=hint, stage="verify", reasons=reasons).problem()


def _sentences(findings: Sequence[Finding]) -> Iterator[str]:
    """What failed, each reason once and in the order of the findings; first of all the weights that caused it."""
    failures = [finding for finding in findings if finding.severity == "fail"]
    if failures[0].reason is Reason.non_finite:
        yield from (_sentence(finding.detail) for finding in findings if finding.reason is Reason.non_finite_weights)
    for reason in dict.fromkeys(finding.reason for finding in failures):
        first, *others = [finding.detail for finding in failures if finding.reason is reason]
        yield _sentence(f"{first.rstrip('.')} (and {len(others)} more of this kind)" if others else first)


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


def _facts_of_the_job(work: Workpiece) -> dict[str, Any]:
    job, description = work.job, work.description
    return {
        "conversion_id": job.conversion_id,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "architecture": job.architecture,
        "architecture_options": job.architecture_options,
        "family": description.family,
        "library": description.library,
        "library_version": description.library_version,
        "signature": signature_of_file(work.request.signature, job.options),
        "target": job.options.target,
        "options": job.options.model_dump(mode="json"),
        "checkpoint_sha256": job.checkpoint_sha256,
        "checkpoint_filename": job.checkpoint_filename,
    }


def _environment() -> dict[str, str]:
    return {"platform": platform.platform(), PACKAGE: service_version(), **library_versions()}
