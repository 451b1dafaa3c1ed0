"""Publishing what a conversion yielded: first the bytes, then one transaction that makes all of it visible.

Nothing is believed that the conversion's process told of itself: files are hashed here, what has a name of ours has it
by our table, the report is written from what was validated, and identities are those of the job.
"""

import asyncio
import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from sqlalchemy.exc import DataError, IntegrityError

from app.conversion.job import BuiltTemplate, ConversionJob, ConversionOutcome, UnsuitableTemplate
from app.database import checkpoints, conversions, templates
from app.database.conversions import Ending
from app.database.session import Database
from app.database.templates import Holder
from app.delivery.statement import Signer, statement_of
from app.domain.conversion import Stage, State
from app.domain.errors import ChildCrashed
from app.domain.produced_files import MEDIA_TYPES, STATEMENT, is_name_of
from app.domain.report import Finding, ProducedFile, TemplateUse, worst_parity
from app.domain.text import LONGEST_DETAIL, storable
from app.jobs.child_problem import NotTheChilds, retold
from app.jobs.patience import Tell, patiently
from app.jobs.results import FoundFile, ResultsDirectory
from app.storage.objects import ObjectStore, StoredObject
from app.targets import selfcheck
from app.targets.specs import SPECS
from app.threads import in_thread

LONGEST_REASON = 2_000
MOST_FINDINGS = 100

NotStorable = (DataError, IntegrityError)
"""What SQLAlchemy raises for a value that a column cannot hold."""


@dataclass(frozen=True)
class Origin:
    """What the service itself knows of the conversion that ends."""

    job: ConversionJob
    holder: Holder
    told_templates: Mapping[str, str]
    """What its process was told of each template key that it asked for; of no other it may tell."""


async def publish(
    database: Database,
    store: ObjectStore,
    origin: Origin,
    results: ResultsDirectory,
    outcome: ConversionOutcome,
    *,
    signer: Signer,
    tell: Tell | None = None,
) -> Ending:
    """Move the files in ``results`` and the signed statement of them to the store, and record the end of the attempt.

    Gives what was recorded. No process of the conversion is left. Raises ChildCrashed where the outcome is not what
    this job can have yielded, and AttemptLost; then nothing is visible: the stored bytes belong to nobody and are
    collected later.
    """
    began = time.monotonic()
    outcome = _own(outcome, origin.job)
    _check_templates(outcome, origin.told_templates)
    found = await asyncio.gather(*(in_thread(partial(_found, results, file, outcome)) for file in outcome.files))
    built = await _find_template(results, outcome.template)
    files = tuple(_described(told, file) for told, file in zip(outcome.files, found, strict=True))
    report = outcome.report
    envelope = results.write(STATEMENT, signer.envelope(statement_of(report, files)))
    named = [*zip(found, (file.filename for file in outcome.files), strict=True), (envelope, STATEMENT)]
    moves = [
        *(partial(store.adopt, one.path, one.sha256, filename) for one, filename in named),
        *(partial(store.adopt, one.path, one.sha256) for one in filter(None, (built,))),
    ]
    settled = patiently(partial(store.settle, origin.job.checkpoint_sha256), tell)  # it may have come just now
    await asyncio.gather(settled, *(patiently(move, tell) for move in moves))
    ending = Ending(
        state=State.failed if outcome.problem else State.succeeded,
        problem=outcome.problem,
        verdict=report.verification.verdict,
        parity=worst_parity(report.verification.probes),
        findings=_shown(report.verification.findings),
        timings={**_stages(report.timings), Stage.publish.value: time.monotonic() - began},
        peak_memory_bytes=report.peak_memory_bytes,
        template=_noted(report.export.template),
        files=(*files, _file_of("statement", STATEMENT, envelope)),
    )
    stored = StoredObject(built.sha256, built.bytes) if built else None
    return await patiently(partial(_record, database, origin, outcome, ending, stored))


def _own(outcome: ConversionOutcome, job: ConversionJob) -> ConversionOutcome:
    """The outcome, known to be of this job and of its kind; its problem as the service tells it on."""
    report, told = outcome.report, outcome.files
    mine = (job.conversion_id, job.checkpoint_sha256, job.checkpoint_filename, job.architecture, job.options.target)
    if mine != (
        report.conversion_id,
        report.checkpoint_sha256,
        report.checkpoint_filename,
        report.architecture,
        report.target,
    ):
        raise ChildCrashed("The conversion process reported of another conversion.")
    suffix = SPECS[job.options.target].suffix
    roles = [file.role for file in told]
    if len(set(roles)) != len(roles) or not {"artifact", "report"} <= set(roles) or "statement" in roles:
        raise ChildCrashed("The conversion process did not name one file of each role.")
    if any(not is_name_of(file.role, file.filename, job.architecture, suffix) for file in told):
        raise ChildCrashed("The conversion process named a file as none of its role is called.")
    by_role = {file.role: file for file in told}
    if (report.artifact, report.artifact_data) != (by_role["artifact"], by_role.get("artifact_data")):
        raise ChildCrashed("The conversion process reported of other files than it made.")
    if report.problem != outcome.problem:
        raise ChildCrashed("The conversion process reported another end than it told.")
    try:
        problem = retold(outcome.problem) if outcome.problem else None
    except NotTheChilds:
        raise ChildCrashed("The conversion process told of an error that is not its to tell.") from None
    return replace(outcome, problem=problem, report=report.model_copy(update={"problem": problem}))


def _check_templates(outcome: ConversionOutcome, told: Mapping[str, str]) -> None:
    built, discarded = outcome.template, outcome.discarded_template
    if built is not None and told.get(built.key) != "build" and built.key != discarded:
        raise ChildCrashed("The conversion process made a template that was not its to make.")
    if discarded is not None and told.get(discarded) != "stored":
        raise ChildCrashed("The conversion process discards a template that it was not given.")


def _found(results: ResultsDirectory, told: ProducedFile, outcome: ConversionOutcome) -> FoundFile:
    """The file that was told of, as it is. The report is ours to write; so is the program that clients are to run."""
    if told.role == "report":
        return results.write(told.filename, outcome.report.model_dump_json().encode())
    found = results.find(told.filename)
    if (found.sha256, found.bytes) != (told.sha256, told.bytes):
        raise ChildCrashed(f"The conversion process told wrongly of its file {told.filename}.")
    if told.role == "selfcheck" and found.sha256 != _selfcheck_sha256():
        raise ChildCrashed("The conversion process exchanged the program that checks its artifact.")
    return found


def _described(told: ProducedFile, found: FoundFile) -> ProducedFile:
    return _file_of(told.role, told.filename, found)


def _file_of(role: str, filename: str, found: FoundFile) -> ProducedFile:
    return ProducedFile.model_validate(
        {
            "role": role,
            "filename": filename,
            "sha256": found.sha256,
            "bytes": found.bytes,
            "media_type": MEDIA_TYPES[role],
        }
    )


def _shown(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """What a conversion tells of its findings whenever it is asked for; the report has them whole."""
    return tuple(
        finding.model_copy(update={"detail": storable(finding.detail, LONGEST_DETAIL)})
        for finding in findings[:MOST_FINDINGS]
    )


def _noted(use: TemplateUse | None) -> TemplateUse | None:
    """Likewise of its template."""
    if use is None:
        return None
    reason = None if use.reason is None else storable(use.reason, LONGEST_DETAIL)
    return use.model_copy(update={"certificate": None, "reason": reason})


def _stages(timings: dict[str, float]) -> dict[str, float]:
    return {stage.value: timings[stage] for stage in Stage if math.isfinite(timings.get(stage, math.nan))}


@cache
def _selfcheck_sha256() -> str:
    return hashlib.sha256(selfcheck.script()).hexdigest()


async def _find_template(
    results: ResultsDirectory, template: BuiltTemplate | UnsuitableTemplate | None
) -> FoundFile | None:
    if not isinstance(template, BuiltTemplate):
        return None
    if Path(template.path).parent not in (results.path, Path()):
        raise ChildCrashed("The conversion process named a file that cannot be one of its own.")
    return await in_thread(partial(results.find, Path(template.path).name))


async def _record(
    database: Database, origin: Origin, outcome: ConversionOutcome, ending: Ending, built: StoredObject | None
) -> Ending:
    holder = origin.holder
    async with database.transaction() as session:
        recorded = await conversions.finish(session, holder.conversion_id, holder.attempt, ending)
        if built and isinstance(outcome.template, BuiltTemplate):
            await templates.publish(
                session,
                outcome.template.key,
                holder,
                object_sha256=built.sha256,
                bytes=built.bytes,
                certificate=outcome.template.certificate,
            )
        if isinstance(outcome.template, UnsuitableTemplate):
            await templates.rule_out(session, outcome.template.key, holder, outcome.template.reason[:LONGEST_REASON])
        if outcome.discarded_template:
            reason = f"Its artifact was refused in conversion {holder.conversion_id}."
            await templates.rule_out(session, outcome.discarded_template, holder, reason)
        await templates.give_up(session, holder)
        report = outcome.report
        await checkpoints.record_inspection(session, report.checkpoint_sha256, report.checkpoint, holder.project)
        await checkpoints.record_parameters(session, report.checkpoint_sha256, report.parameters, holder.project)
        return recorded
