"""Preflight: would these keys and shapes load, what would the conversion cost, and which architecture are they of?

Everything is told from what is known already: no conversion process is asked and no weight is read.
"""

import asyncio
import math
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Annotated, Any, Literal

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field

from app.api.bodies import MAX_JSON_VALUES, json_body, json_text, parse_object, refuse_large, validated
from app.api.problems import PROBLEM_RESPONSES, Told
from app.api.readable import ReadableRouter
from app.api.service import Service, ServiceDependency
from app.conversion.heads import HeadProposal, head_proposal
from app.conversion.key_repair import Shapes
from app.conversion.matching import LayoutIndex, Match, best_of
from app.database import experience
from app.domain.catalog import Catalog
from app.domain.checkpoint import CheckpointInspection
from app.domain.conversion import TargetName
from app.domain.errors import InvalidOptions, InvalidRequest, NotReady, Problem
from app.domain.options import check_options, complete_options
from app.jobs import queue
from app.jobs.admission import estimate
from app.targets.specs import default_options

router = ReadableRouter(prefix="/v1/preflight", tags=["conversions"], responses=PROBLEM_RESPONSES)

MOST_BYTES = 4 << 20
"""Of the body: a manifest of some 20,000 tensors."""
MOST_VALUES = 400_000
MOST_RANK = 64
MOST_MEMBERS = 16
"""Of a tensor's description that are looked at; it may have three."""
PIECE = 200
"""Tensors that are checked at once."""
MOST_DECLARED = 1 << 63
"""Bytes of all tensors of a manifest: file systems count them in 63 bits."""
LISTED = 50
"""Keys of one kind that are listed; their number is told in any case."""
PROPOSED = 5
READING_PATIENCE = 10
SAFETENSORS_DTYPES = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn"},
    **{"F8_E5M2": "float8_e5m2", "C64": "complex64", "C128": "complex128", "BOOL": "bool"},
    **{f"{kind}{bits}": f"{name}{bits}" for kind, name in (("I", "int"), ("U", "uint")) for bits in (8, 16, 32, 64)},
}
BYTES = {"complex64": 8, "complex128": 16, "bool": 1, "bfloat16": 2, "float8_e4m3fn": 1, "float8_e5m2": 1}
BITS = re.compile(r"[0-9]{1,3}")
FIRST_SECONDS = 2.0, 0.01, 2.5e-8
"""Of a first conversion: in any case, for each tensor and for each byte; fitted to README's table (2 cores)."""
REPEAT_SECONDS = 0.2, 0.0005, 1.0e-8
"""The same where a template is there."""


class ManifestTensor(BaseModel):
    """As in the header of a safetensors file, whose own names of dtypes are understood too."""

    model_config = ConfigDict(extra="forbid")

    shape: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**48, strict=True)], ...], Field(max_length=MOST_RANK)]
    dtype: Annotated[str, Field(max_length=32)] = "float32"
    data_offsets: tuple[int, int] | None = None
    """Not used."""


class PreflightRequest(BaseModel):
    """Either a manifest or an uploaded checkpoint. Without an architecture all registered ones are looked at."""

    model_config = ConfigDict(extra="forbid")

    manifest: dict[str, ManifestTensor] | None = None
    """Key of the state dict to shape and dtype; the header of a safetensors file can be sent as it is."""
    checkpoint: Annotated[str, Field(max_length=80)] | None = None
    architecture: Annotated[str, Field(max_length=300)] | None = None
    architecture_options: dict[str, Any] = {}
    filename: Annotated[str, Field(max_length=1000)] | None = None
    """Of several architectures that fit equally, the one that it names is proposed first."""


class Proposal(BaseModel):
    """An architecture with options, and how the tensors meet it."""

    architecture: str
    architecture_options: dict[str, Any]
    """Those that differ from their defaults."""
    prefix: str | None
    """What to ask for as the option ``prefix``; null where none is needed."""
    fits: bool
    """Whether every tensor has a place, and every place that needs a tensor has one."""
    fitting: int
    """Tensors that have a place of their shape."""
    sentence: str
    missing_keys: list[str]
    missing: int
    unexpected_keys: list[str]
    unexpected: int
    shape_mismatches: list[str]
    mismatched: int


class TargetEstimate(BaseModel):
    """``template``: whether the graph is there, so that nothing is exported. ``based_on``: where the seconds are from:
    finished conversions of this architecture, or a formula."""

    template: bool
    seconds: float
    based_on: Literal["history", "formula"]


class RecipeProposal(BaseModel):
    """The body of POST /v1/architectures, and what of it no file can tell: which layers without weights there are."""

    recipe: dict[str, Any]
    assumed: list[str]
    sentence: str


class Preflight(BaseModel):
    """``loads``, ``does_not_load``, or ``unknown`` where it shows only when the architecture is built and the file is
    read."""

    verdict: Literal["loads", "does_not_load", "unknown"]
    detail: str
    tensors: int
    bytes: int
    asked: Proposal | None
    """How the tensors meet the architecture that was named; null where none was, or where that is not known."""
    proposals: list[Proposal]
    """The best first. Empty where the architecture that was named fits."""
    recipe: RecipeProposal | None
    """Where the file fits an architecture but for a head of its own: the recipe that makes it fit."""
    memory_bytes: int
    """What a conversion of so many bytes is admitted with."""
    targets: dict[TargetName, TargetEstimate]
    """Of the architecture that was named, or of the first proposal."""


EXAMPLE = {"manifest": {"fc.weight": {"shape": [37, 2048], "dtype": "float32"}}, "filename": "birds.pth"}


@router.post("", summary="Would it load, and what is it?", openapi_extra=json_body(PreflightRequest, EXAMPLE))
async def preflight(request: Request, service: ServiceDependency) -> Preflight:
    """Send a manifest (keys, shapes, dtypes) or the id of a checkpoint, with or without an architecture.

    Tells whether the file would load, what is missing, whether a template is there and what the conversion would take.
    Where no architecture is named, or another would fit, the registered ones are ranked and the options told that make
    one fit. Nothing is built for it: what an option does that was never tried is `unknown`.
    """
    text = await json_text(request, MOST_BYTES)
    async with service.preflights:
        asked = await asyncio.to_thread(_asked, text)
    shapes, size, told = await _tensors(service, asked)
    catalog = await service.catalog.current()
    recipes = await service.catalog.recipes()
    indexes = (
        await service.layouts.of_recipes(recipes, service.database),
        *await service.layouts.indexes(await service.catalog.common()),
    )
    async with service.preflights:
        answer = await asyncio.to_thread(_answer, asked, catalog, indexes, shapes, told)
    best = asked.architecture or next((p.architecture for p in answer.proposals), None)
    options = asked.architecture_options if asked.architecture else _options_of_first(answer.proposals)
    answer.bytes, answer.memory_bytes = size, estimate(size)
    if best is not None:
        answer.targets = await _targets(service, best, options, len(shapes), size)
    return answer


def _asked(text: str) -> PreflightRequest:
    """A body. Raises InvalidRequest.

    The manifest is checked in pieces, between which other threads run: pydantic holds the interpreter for the whole of
    a call, and makes an error of each value that is wrong.
    """
    body = parse_object(text, "the body", MOST_VALUES)
    manifest = body.get("manifest")
    if not isinstance(manifest, dict):
        refuse_large(body, "the body", MAX_JSON_VALUES)
        return validated(PreflightRequest, body)
    manifest.pop("__metadata__", None)
    beside = {**body, "manifest": {}}
    refuse_large(beside, "the body beside its manifest", MAX_JSON_VALUES)
    asked = validated(PreflightRequest, beside)
    tensors: dict[str, ManifestTensor] = {}
    remaining = iter(manifest.items())
    while piece := {key: _shortened(tensor) for key, tensor in islice(remaining, PIECE)}:
        tensors |= validated(PreflightRequest, {"manifest": piece}).manifest or {}
    return asked.model_copy(update={"manifest": tensors})


def _shortened(tensor: Any) -> Any:
    """A tensor's description without what is beyond the first thing that it is refused for."""
    if not isinstance(tensor, dict):
        return tensor
    members = islice(tensor.items(), MOST_MEMBERS)
    return {name: value[: MOST_RANK + 1] if isinstance(value, list) else value for name, value in members}


async def _tensors(service: Service, asked: PreflightRequest) -> tuple[Shapes, int, str]:
    """Shapes by key, bytes, and the file's name. Raises InvalidRequest, UnknownCheckpoint, NotReady."""
    if (asked.manifest is None) == (asked.checkpoint is None):
        raise InvalidRequest("Send either manifest or checkpoint.")
    if asked.manifest is not None:
        shapes, size = await asyncio.to_thread(_declared, asked.manifest)
        return shapes, size, asked.filename or ""
    sha256 = (asked.checkpoint or "").removeprefix("sha256:").lower()
    checkpoint = await queue.request_inspection(service.database, sha256)
    if checkpoint.inspection is None and checkpoint.problem is None:
        checkpoint = await service.changes.wait_for_inspection(sha256, READING_PATIENCE, service.database.project)
    if checkpoint.problem is not None:
        raise Told(Problem.kept(checkpoint.problem))
    if checkpoint.inspection is None:
        raise NotReady("The file has not been read yet.", hint="Ask again.", retry_after=1)
    read = await asyncio.to_thread(CheckpointInspection.kept, checkpoint.inspection)
    return {t.name: t.shape for t in read.tensors}, read.tensor_bytes, asked.filename or checkpoint.filename or ""


def _declared(manifest: Mapping[str, ManifestTensor]) -> tuple[Shapes, int]:
    """Shapes by key, and bytes. Raises InvalidRequest."""
    size = sum(math.prod(tensor.shape) * _item_size(tensor.dtype) for tensor in manifest.values())
    if size >= MOST_DECLARED:
        raise InvalidRequest("The manifest declares more bytes than any file can hold.")
    return {key: tensor.shape for key, tensor in manifest.items()}, size


def _item_size(dtype: str) -> int:
    name = SAFETENSORS_DTYPES.get(dtype, dtype)
    bits = BITS.search(name)
    return BYTES.get(name) or (int(bits.group()) // 8 if bits else 4)


def _answer(
    asked: PreflightRequest, catalog: Catalog, indexes: Sequence[LayoutIndex], shapes: Shapes, filename: str
) -> Preflight:
    """``indexes``: of the project's recipes, then of all else; of equals, those of the earlier are proposed first."""
    named = _named(asked, catalog, indexes, shapes) if asked.architecture is not None else None
    if named is not None and named.exact:
        ranked: list[list[Match]] = []
    else:
        ranked = [_ranked(index, catalog, shapes, filename) for index in indexes]
    proposals = best_of(ranked, told=filename)[:PROPOSED]
    fits = not ranked or any(match.exact for match in proposals)
    head = None if fits else head_proposal(best_of(ranked[1:]), shapes)  # a recipe is no base of another one
    verdict, detail = _verdict(asked, named, proposals)
    return Preflight(
        verdict=verdict,
        detail=detail if head is None else f"{detail} {head.advice()}",
        tensors=len(shapes),
        bytes=0,
        asked=None if named is None else _shown(named),
        proposals=[_shown(match) for match in proposals],
        recipe=None if head is None else _recipe(head),
        memory_bytes=0,
        targets={},
    )


def _ranked(index: LayoutIndex, catalog: Catalog, shapes: Shapes, filename: str) -> list[Match]:
    ranked = index.rank(shapes, most=2 * PROPOSED, told=filename)
    return [match for match in ranked if _admitted(match, catalog)][:PROPOSED]


def _named(asked: PreflightRequest, catalog: Catalog, indexes: Sequence[LayoutIndex], shapes: Shapes) -> Match | None:
    """How the tensors meet the architecture that was asked for. Raises UnknownArchitecture, InvalidOptions."""
    entry = catalog.get(asked.architecture or "")
    check_options(entry.name, entry.options_schema, asked.architecture_options)
    defaults = complete_options(entry.options_schema, {})
    complete = complete_options(entry.options_schema, asked.architecture_options)
    changed = {
        option: value for option, value in complete.items() if option not in defaults or value != defaults[option]
    }
    found = next((index for index in indexes if entry.name in index), indexes[-1])
    return found.check(entry.name, changed, shapes)


def _admitted(match: Match, catalog: Catalog) -> bool:
    try:
        catalog.validate_options(match.architecture, match.options)
    except InvalidOptions:
        return False
    return True


def _verdict(
    asked: PreflightRequest, named: Match | None, proposals: Sequence[Match]
) -> tuple[Literal["loads", "does_not_load", "unknown"], str]:
    if named is not None and named.exact:
        return "loads", f"{named.sentence()}."
    advice = proposal_sentence(proposals)
    if asked.architecture is None:
        return ("loads" if proposals and proposals[0].exact else "unknown"), advice
    if named is None:
        return "unknown", f"What these options do to {asked.architecture} shows only when it is built. {advice}"
    other_keys = named.missing or named.unexpected
    library_may_convert = asked.architecture.startswith(("timm/", "transformers/")) and not (
        proposals and proposals[0].exact
    )
    if other_keys and library_may_convert:
        return "unknown", f"{named.sentence()}; its library may know the file's other keys. {advice}"
    return "does_not_load", f"{named.sentence()}. {advice}"


def proposal_sentence(proposals: Sequence[Match]) -> str:
    """The best proposal in words, and which others cannot be told from it."""
    if not proposals:
        return "No registered architecture has keys like these."
    best = proposals[0]
    equal = [match.architecture for match in proposals[1:] if match.exact and best.exact]
    said = f"{best.sentence()}."
    return f"{said} Keys and shapes fit {', '.join(equal)} as well." if equal else said


def _shown(match: Match) -> Proposal:
    return Proposal(
        architecture=match.architecture,
        architecture_options=dict(match.options),
        prefix=match.prefix,
        fits=match.exact,
        fitting=match.fitting,
        sentence=match.sentence(),
        missing_keys=list(match.missing[:LISTED]),
        missing=len(match.missing),
        unexpected_keys=list(match.unexpected[:LISTED]),
        unexpected=len(match.unexpected),
        shape_mismatches=list(match.mismatched[:LISTED]),
        mismatched=len(match.mismatched),
    )


def _recipe(head: HeadProposal) -> RecipeProposal:
    return RecipeProposal(recipe=head.recipe, assumed=list(head.assumed), sentence=head.sentence())


def _options_of_first(proposals: Sequence[Proposal]) -> Mapping[str, Any]:
    return proposals[0].architecture_options if proposals else {}


async def _targets(
    service: Service, architecture: str, options: Mapping[str, Any], tensors: int, size: int
) -> dict[TargetName, TargetEstimate]:
    found: dict[TargetName, TargetEstimate] = {}
    entry = (await service.catalog.current()).get(architecture)
    for target in default_options(entry.targets):
        async with service.database.transaction() as session:
            known = await experience.of(session, architecture, options, target.target, target.model_dump(mode="json"))
        fixed, per_tensor, per_byte = REPEAT_SECONDS if known.template else FIRST_SECONDS
        found[target.target] = TargetEstimate(
            template=known.template,
            seconds=round(known.seconds or fixed + per_tensor * tensors + per_byte * size, 2),
            based_on="formula" if known.seconds is None else "history",
        )
    return found
