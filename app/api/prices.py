"""What each conversion of a group costs and how near to the model it is: precisions and targets side by side."""

from pydantic import BaseModel

from app.api.groups import GroupId
from app.api.problems import PROBLEM_RESPONSES
from app.api.readable import ReadableRouter
from app.api.reports import figures_of
from app.api.service import Service, ServiceDependency
from app.database import groups as rows
from app.database.conversions import Found
from app.delivery.report_figures import Figures

router = ReadableRouter(prefix="/v1/groups", tags=["groups"], responses=PROBLEM_RESPONSES)


class Price(BaseModel):
    """What one conversion of a group costs and how near to the model it is."""

    id: str
    target: str
    precision: str | None
    """Of a target that has several."""
    state: str
    verdict: str | None
    bytes: int | None
    """Of the artifact, with its data file."""
    size: float | None
    """By the largest of the group."""
    latency: float | None
    """Median seconds of the artifact at the sample size, on the machine that converted it."""
    latency_runs: int | None
    worst_ratio: float | None
    """error / gate of the output nearest to its own; of an approximation, noise / noise that the budget admits."""
    snr_db: float | None
    """Least SNR of an approximation."""
    top1: float | None
    """Least top-1 agreement of an approximation."""
    fp32_layers: list[str]
    """Layers of an approximation that stay in float32."""
    problem: str | None
    """Why there is no artifact, or why it is not to be used."""


class PriceList(BaseModel):
    """In the order of the request."""

    items: list[Price]


@router.get("/{group_id}/prices", summary="Price the conversions of a group")
async def price_group(group_id: GroupId, service: ServiceDependency) -> PriceList:
    """Size, latency, worst ratio and agreement of each, side by side: what a precision costs."""
    async with service.database.transaction() as session:
        members = await rows.members_with_files(session, group_id)
    prices = [await _price(service, member) for member in members]
    largest = max((price.bytes for price in prices if price.bytes), default=None)
    return PriceList(
        items=[p.model_copy(update={"size": p.bytes / largest if p.bytes and largest else None}) for p in prices]
    )


async def _price(service: Service, member: Found) -> Price:
    row, files = member.conversion, {file.role: file for file in member.files}
    figures = await figures_of(service, files["report"]) if "report" in files and row.expired_at is None else Figures()
    lying = [files[role].bytes for role in ("artifact", "artifact_data") if role in files]
    return Price(
        id=row.id,
        target=row.target,
        precision=row.options.get("precision"),
        state=row.state.value,
        verdict=row.verdict,
        bytes=sum(lying) if lying else None,
        size=None,
        problem=row.problem["detail"] if row.problem else None,
        **figures.model_dump(),
    )
