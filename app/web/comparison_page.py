"""The page that holds two conversions side by side."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Query
from starlette.responses import HTMLResponse

from app.api.comparison import ComparedTensor, compare_conversions
from app.api.principals import Acting
from app.api.readable import ReadableRouter
from app.api.service import ServiceDependency
from app.delivery.charts import Tick
from app.delivery.treemap import by_layer
from app.web.rendering import page

router = ReadableRouter(include_in_schema=False)

MOST_LAYERS = 30
LISTED = 1000
SMALLEST = 1e-8
"""Of the norm: where the axis of differences begins, about the rounding of float32."""

Id = Annotated[str, Query(pattern="^cnv_[0-9a-f]{32}$")]


@dataclass(frozen=True)
class LayerChange:
    """The tensors of one layer in both artifacts; norms are over all that were measured."""

    name: str
    tensors: int
    changed: int
    difference: float
    relative: float
    estimated: bool

    @property
    def position(self) -> float:
        """Where ``relative`` lies on a logarithmic axis from SMALLEST to 1, in percent."""
        if not self.changed or self.relative <= SMALLEST:
            return 0.0
        return 100.0 if math.isnan(self.relative) else _position(self.relative)


def _position(relative: float) -> float:
    """Percent of that axis; what is above 1 ends at 1."""
    return min(100.0, 100 - 100 * math.log10(relative) / math.log10(SMALLEST))


TICKS = tuple(
    Tick(label, _position(relative), is_gate=False)
    for label, relative in (("10⁻⁸", 1e-8), ("10⁻⁶", 1e-6), ("10⁻⁴", 1e-4), ("1 %", 1e-2), ("100 %", 1.0))
)


@router.get("/compare")
async def comparison_page(first: Id, second: Id, service: ServiceDependency, acting: Acting) -> HTMLResponse:
    told = await compare_conversions(first, second, service)
    tensors = told.tensors or []
    return page(
        "compare.html",
        acting=acting,
        told=told,
        sides=(told.first, told.second),
        layers=layer_changes(tensors),
        changed=[tensor for tensor in tensors if tensor.change != "same"],
        rows=LISTED,
        ticks=TICKS,
    )


def layer_changes(tensors: Sequence[ComparedTensor]) -> tuple[LayerChange, ...]:
    grouped = by_layer([tensor.name for tensor in tensors], MOST_LAYERS)
    return tuple(_layer(name, [tensors[place] for place in places]) for name, places in grouped.items())


def _layer(name: str, tensors: Sequence[ComparedTensor]) -> LayerChange:
    measured = [tensor for tensor in tensors if tensor.difference is not None and tensor.norm is not None]
    difference = math.hypot(*(tensor.difference or 0.0 for tensor in measured))
    norm = math.hypot(*(tensor.norm or 0.0 for tensor in measured))
    return LayerChange(
        name,
        len(tensors),
        sum(tensor.change != "same" for tensor in tensors),
        difference,
        difference / norm if norm else (math.inf if difference else 0.0),
        any(tensor.measured < 1 for tensor in tensors),
    )
