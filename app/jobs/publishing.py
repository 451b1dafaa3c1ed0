"""Publishing what a conversion yielded: first the bytes, then one transaction that makes all of it visible."""

import asyncio
import hashlib
import time
from functools import partial
from pathlib import Path

from app.conversion.job import BuiltTemplate, ConversionOutcome, UnsuitableTemplate
from app.database import checkpoints, conversions, templates
from app.database.conversions import Ending
from app.database.session import Database
from app.database.templates import Holder
from app.domain.conversion import Stage, State
from app.domain.errors import ChildCrashed
from app.jobs.patience import Tell, patiently
from app.storage.objects import ObjectStore, StoredObject
from app.threads import in_thread


async def publish(
    database: Database,
    store: ObjectStore,
    holder: Holder,
    results: Path,
    outcome: ConversionOutcome,
    *,
    tell: Tell | None = None,
) -> Ending:
    """Move the files in ``results`` to the store and record the end of the attempt; gives what was recorded.

    Raises AttemptLost, and then nothing is visible: the stored bytes belong to nobody and are collected later.
    """
    began = time.monotonic()
    moves = [partial(store.adopt, _inside(results, Path(file.filename)), file.sha256) for file in outcome.files]
    await asyncio.gather(*(patiently(move, tell) for move in moves))
    built = await _store_template(store, results, outcome.template)
    report = outcome.report
    ending = Ending(
        state=State.failed if outcome.problem else State.succeeded,
        problem=outcome.problem,
        verdict=report.verification.verdict,
        findings=report.verification.findings,
        timings={**report.timings, Stage.publish.value: time.monotonic() - began},
        peak_memory_bytes=report.peak_memory_bytes,
        template=report.export.template,
        files=outcome.files,
    )
    return await patiently(partial(_record, database, holder, outcome, ending, built))


async def _record(
    database: Database, holder: Holder, outcome: ConversionOutcome, ending: Ending, built: StoredObject | None
) -> Ending:
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
            await templates.rule_out(session, outcome.template.key, holder, outcome.template.reason)
        if outcome.discarded_template:
            reason = f"Its artifact was refused in conversion {holder.conversion_id}."
            await templates.rule_out(session, outcome.discarded_template, holder, reason)
        await templates.give_up(session, holder)
        report = outcome.report
        await checkpoints.record_inspection(session, report.checkpoint_sha256, report.checkpoint)
        await checkpoints.record_parameters(session, report.checkpoint_sha256, report.parameters)
        return recorded


async def _store_template(
    store: ObjectStore, results: Path, template: BuiltTemplate | UnsuitableTemplate | None
) -> StoredObject | None:
    if not isinstance(template, BuiltTemplate):
        return None
    path = _inside(results, template.path)
    sha256 = await in_thread(partial(_sha256, path))
    return await patiently(partial(store.adopt, path, sha256))


def _inside(results: Path, name: Path) -> Path:
    """The file of that name; ChildCrashed when the child names one outside of its directory."""
    path = (results / name).resolve()
    if not path.is_relative_to(results.resolve()) or not path.is_file():
        raise ChildCrashed(f"The conversion process named a file that it did not make: {name}.")
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
