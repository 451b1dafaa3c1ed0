"""Two conversions side by side: what was asked, what it yielded, and which tensors differ."""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Path
from pydantic import BaseModel

from app.api.conversion_files import file_of, reader_of, results
from app.api.conversions import ConversionId
from app.api.problems import PROBLEM_RESPONSES
from app.api.readable import ReadableRouter
from app.api.reports import figures_of
from app.api.service import Service, ServiceDependency
from app.database.tables import Conversion, ConversionFile
from app.delivery.comparison import Source, compare
from app.delivery.onnx_file import NotReadable, stored_tensors
from app.targets.specs import shows_graph

LONGEST_COMPARISON = 60.0
"""Seconds: each tensor is read from the store on both sides."""

router = ReadableRouter(prefix="/v1/conversions", tags=["results"], responses=PROBLEM_RESPONSES)


class Side(BaseModel):
    """One of the two. ``latency`` is that of the artifact, in seconds, where it was measured."""

    id: str
    architecture: str
    target: str
    checkpoint: str
    verdict: str | None
    parity: dict[str, Any] | None
    bytes: int
    latency: float | None
    latency_runs: int | None


class ComparedTensor(BaseModel):
    """``difference``: 2-norm of second − first; ``norm``: that of the first; both null where nothing is to measure.

    ``change``: same, changed, shape, only_first or only_second. ``measured``: share of the elements that the norms rest
    on; below 1 they are estimates.
    """

    name: str
    change: str
    shape: tuple[int, ...]
    difference: float | None
    norm: float | None
    measured: float


class Comparison(BaseModel):
    """``options``: what was asked differently, as [first, second]; ``tensors`` is null where ``reason`` says why."""

    first: Side
    second: Side
    same_weights: bool
    options: dict[str, tuple[Any, Any]]
    tensors: list[ComparedTensor] | None
    reason: str | None


@router.get("/{conversion_id}/compare/{other_id}", summary="Compare two conversions")
async def compare_conversions(
    conversion_id: ConversionId,
    other_id: Annotated[str, Path(description="The second conversion's id")],
    service: ServiceDependency,
) -> Comparison:
    """Options, verdict, parity, size and latency of both; of ONNX artifacts which tensors differ, and by how much."""
    (one, its_files), (other, others_files) = [await results(service, id) for id in (conversion_id, other_id)]
    first, second = await _side(service, one, its_files), await _side(service, other, others_files)
    beside = any(map(_leaves_weights, (one, other), (its_files, others_files)))
    told = None, "The weights of one artifact lie in a file beside it."
    tensors, reason = (
        told
        if beside
        else await _tensors(service, its_files["artifact"], others_files["artifact"], {one.target, other.target})
    )
    return Comparison(
        first=first,
        second=second,
        same_weights=one.checkpoint_sha256 == other.checkpoint_sha256,
        options=_differing(one, other),
        tensors=tensors,
        reason=reason,
    )


async def _side(service: Service, row: Conversion, files: Mapping[str, ConversionFile]) -> Side:
    """Raises NotReady for a conversion without an artifact."""
    artifact = file_of(row, dict(files), "artifact")
    figures = await figures_of(service, file_of(row, dict(files), "report"))
    return Side(
        id=row.id,
        architecture=row.architecture,
        target=row.target,
        checkpoint=row.checkpoint_sha256,
        verdict=row.verdict,
        parity=row.parity,
        bytes=artifact.bytes + (files["artifact_data"].bytes if "artifact_data" in files else 0),
        latency=figures.latency,
        latency_runs=figures.latency_runs,
    )


def _leaves_weights(row: Conversion, files: Mapping[str, ConversionFile]) -> bool:
    """Whether large tensors are not in the artifact itself."""
    return "artifact_data" in files or row.options.get("external_data") == "checkpoint"


def _differing(one: Conversion, other: Conversion) -> dict[str, tuple[Any, Any]]:
    """Everything that was asked and is not the same, by name."""
    asked = [
        {"architecture": row.architecture, "target": row.target, **row.architecture_options, **row.options}
        for row in (one, other)
    ]
    names = dict.fromkeys([*asked[0], *asked[1]])
    pairs = {name: (asked[0].get(name), asked[1].get(name)) for name in names}
    return {name: (first, second) for name, (first, second) in pairs.items() if first != second}


async def _tensors(
    service: Service, one: ConversionFile, other: ConversionFile, targets: set[str]
) -> tuple[list[ComparedTensor] | None, str | None]:
    """The tensors of two artifacts, or why they are not compared."""
    if not all(map(shows_graph, targets)):
        return None, "Tensors of two ONNX artifacts are compared; one of these is none."
    try:
        async with service.graphs, asyncio.timeout(LONGEST_COMPARISON):
            sources = [await _source(service, file) for file in (one, other)]
            changes = await compare(*sources)
    except NotReadable as error:
        return None, f"An artifact cannot be read: {error}."
    except TimeoutError:
        return None, f"Comparing the tensors takes longer than {LONGEST_COMPARISON:g} seconds."
    return [ComparedTensor(**vars(change)) for change in changes], None


async def _source(service: Service, file: ConversionFile) -> Source:
    read = reader_of(service, file)
    return Source(await stored_tensors(read, file.bytes), read)
