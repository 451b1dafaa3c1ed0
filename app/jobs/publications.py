"""Putting a finished conversion's files where its client wants them: by a worker, tried again, with a receipt."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog

from app.database import catalogs, conversions, projects
from app.database import publications as rows
from app.database.tables import Conversion, ConversionFile
from app.domain.architecture import Signature
from app.domain.errors import Expired, NotFound, PublishFailed, RecastError
from app.domain.produced_files import artifact_stem
from app.domain.publication import Publication
from app.domain.report import ConversionReport
from app.jobs import metrics
from app.jobs.consumer import Job
from app.jobs.patience import away, patiently
from app.jobs.tools import Tools
from app.remotes.destinations import publish as publish_to
from app.remotes.http import Interrupted
from app.remotes.published import Model, PublishedFile, TensorShape
from app.storage.objects import MissingObject
from app.targets.specs import known_target

log = structlog.get_logger(__name__)

PAUSES = tuple(timedelta(seconds=seconds) for seconds in (5, 30, 120, 600, 1800, 3600, 7200))
"""Before each further attempt."""
PUBLISHED_ROLES = ("artifact", "artifact_data", "report")

ANY = -1


async def publish(tools: Tools, job: Job) -> None:
    """Publish what a queue entry stands for; nothing where it is no longer the publication's entry."""
    found = await patiently(partial(_find, tools, job))
    if found is None:
        return
    conversion, files, publication = found
    structlog.contextvars.bind_contextvars(request_id=conversion.request_id)
    try:
        receipt = await _publish(tools, conversion, files, publication)
    except Interrupted as error:
        await _later(tools, job, publication, str(error))
    except Exception as error:
        if away(error) is not None:
            await patiently(tools.store.check)
            await _later(tools, job, publication, "a part of the service was away")
        elif isinstance(error, RecastError):
            await _end(tools, job, _failed(publication, error))
        else:
            raise
    else:
        done = {"state": "published", "receipt": receipt, "error": None, "published_at": datetime.now(UTC)}
        await _end(tools, job, publication.model_copy(update=done))


async def publication_stumbled(tools: Tools, job: Job) -> None:
    """End a publication over which the worker itself stumbled."""
    found = await _find(tools, job)
    if found is not None:
        error = PublishFailed("The worker stumbled over this; its log says over what.")
        await _end(tools, job, _failed(found[2], error))


async def _find(tools: Tools, job: Job) -> tuple[Conversion, dict[str, ConversionFile], Publication] | None:
    async with tools.database.transaction() as session:
        try:
            conversion = await conversions.find(session, job.arguments["conversion_id"])
        except NotFound:
            return None
        publication = _own(conversion, job)
        if publication is None:
            return None
        return conversion, {file.role: file for file in await conversions.files(session, conversion.id)}, publication


def _own(conversion: Conversion, job: Job) -> Publication | None:
    """The publication of an entry; None where it is not that one's any more."""
    known = rows.of(conversion)
    at = int(job.arguments["at"])
    if at < len(known) and known[at].queue_job_id == job.entry and known[at].state == "pending":
        return known[at]
    return None


async def _publish(
    tools: Tools, conversion: Conversion, files: dict[str, ConversionFile], publication: Publication
) -> dict[str, object]:
    if "artifact" not in files or "report" not in files:
        raise Expired("The files of this conversion are no longer kept.")
    async with tools.database.transaction() as session:
        owners = await projects.known_as(session, conversion.project_id)
        signature = await catalogs.signature_of(session, conversion.architecture)
    remote = tools.grants.find(publication.uri, owners, "publish")
    try:
        report = ConversionReport.kept(
            b"".join([bytes(chunk) async for chunk in tools.store.stream(files["report"].sha256)])
        )
        if report.export.weights_beside is not None:
            raise PublishFailed("The artifact has no weights of its own: it points into the uploaded checkpoint.")
        model = _model(tools, conversion, files, report, signature)
        return await publish_to(publication, model, remote, tools.egress)
    except MissingObject as error:
        raise PublishFailed(f"The store no longer holds {error}.") from None


def _model(
    tools: Tools,
    conversion: Conversion,
    files: dict[str, ConversionFile],
    report: ConversionReport,
    signature: Signature | None,
) -> Model:
    def opened(file: ConversionFile) -> AsyncIterator[bytes]:
        return _bytes(tools, file.sha256)

    spec = known_target(conversion.target)
    assert spec is not None
    published = tuple(
        PublishedFile(role, file.filename, file.sha256, file.bytes, file.media_type, partial(opened, file))
        for role in PUBLISHED_ROLES
        if (file := files.get(role)) is not None
    )
    return Model(
        conversion_id=conversion.id,
        architecture=conversion.architecture,
        target=spec.name,
        serving=spec.serving,
        verdict=conversion.verdict or "none",
        checkpoint_sha256=conversion.checkpoint_sha256,
        default_name=f"{artifact_stem(conversion.architecture)}-{spec.name}",  # a name means one backend, to Triton
        files=published,
        inputs=_inputs(report, signature),
        outputs=_outputs(report),
    )


async def _bytes(tools: Tools, sha256: str) -> AsyncIterator[bytes]:
    async for chunk in tools.store.stream(sha256):
        yield bytes(chunk)


def _inputs(report: ConversionReport, signature: Signature | None) -> tuple[TensorShape, ...]:
    """The inputs as delivered: an axis that was not delivered as one that varies has the size that it was run at."""
    if signature is None:
        return ()
    sizes = next((probe.sizes for probe in report.verification.probes), {})
    found = []
    for spec, name in zip(signature.inputs, report.export.input_names, strict=False):
        varies = report.export.dynamic_axes.get(name, {})
        dims = tuple(
            size if isinstance(size, int) else ANY if at in varies else sizes.get(size, ANY)
            for at, size in enumerate(spec.shape)
        )
        found.append(TensorShape(name, spec.dtype, dims))
    return tuple(found)


def _outputs(report: ConversionReport) -> tuple[TensorShape, ...]:
    """The outputs as verification saw them: what differed between its inputs may vary."""
    seen: dict[str, TensorShape] = {}
    for probe in report.verification.probes:
        for output in probe.outputs:
            known = seen.get(output.output)
            dims = output.shape
            if known is not None and len(known.dims) == len(dims):
                dims = tuple(one if one == other else ANY for one, other in zip(known.dims, dims, strict=True))
            dtype = report.export.io_dtype if output.dtype == "float32" else None
            seen[output.output] = TensorShape(output.output, dtype or output.dtype, dims)
    return tuple(seen[name] for name in report.export.output_names if name in seen)


def _failed(publication: Publication, error: RecastError) -> Publication:
    problem = error.problem()
    told = {"code": problem.code, "detail": problem.detail, "hint": problem.hint}
    return publication.model_copy(update={"state": "failed", "error": told})


async def _later(tools: Tools, job: Job, publication: Publication, why: str) -> None:
    """Try another time; after the last one it has failed."""
    if publication.tries >= len(PAUSES):
        await _end(tools, job, _failed(publication, PublishFailed(f"It could not be reached: {why}.")))
        return
    metrics.publications.labels("retried").inc()
    log.warning("publication_interrupted", conversion=job.arguments["conversion_id"], reason=why)

    async def put_off() -> None:
        async with tools.database.transaction() as session:
            conversion = await conversions.find_locked(session, job.arguments["conversion_id"])
            if _own(conversion, job) is not None:
                await rows.again(session, conversion, int(job.arguments["at"]), PAUSES[publication.tries])

    await patiently(put_off)


async def _end(tools: Tools, job: Job, publication: Publication) -> None:
    metrics.publications.labels(publication.state).inc()

    async def record() -> None:
        async with tools.database.transaction() as session:
            conversion = await conversions.find_locked(session, job.arguments["conversion_id"])
            if _own(conversion, job) is not None:
                await rows.change(session, conversion, int(job.arguments["at"]), publication)

    await patiently(record)
    log.info("publication_ended", conversion=job.arguments["conversion_id"], state=publication.state)
