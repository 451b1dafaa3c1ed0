"""What workers count, for Prometheus. They have no address to be asked at: each adds what it counted to sums in the
database, which outlive it, and the api shows those.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from app.database import sums
from app.database.session import Database
from app.database.sums import Sum

REGISTRY = CollectorRegistry()
"""This process's own counts."""

conversions_ended = Counter(
    "recast_conversions_ended", "Conversions that ended.", ["state", "target"], registry=REGISTRY
)
stage_seconds = Histogram(
    "recast_stage_seconds",
    "Seconds that a stage of a conversion took.",
    ["stage"],
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000),
    registry=REGISTRY,
)
queue_seconds = Histogram(
    "recast_queue_seconds",
    "Seconds from submission to the start of the first attempt.",
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000),
    registry=REGISTRY,
)
jobs_rescued = Counter("recast_jobs_rescued", "Jobs taken over from workers that died.", registry=REGISTRY)
fetches = Counter("recast_fetches", "Attempts to fetch a file from elsewhere.", ["outcome"], registry=REGISTRY)
publications = Counter(
    "recast_publications", "Attempts to publish a conversion's files.", ["outcome"], registry=REGISTRY
)
webhook_attempts = Counter(
    "recast_webhook_attempts", "Attempts to deliver a webhook's message.", ["outcome"], registry=REGISTRY
)
deaths = Counter(
    "recast_deaths", "Workers and conversion processes that died without a word.", ["of"], registry=REGISTRY
)

SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}


class Publisher:
    """Adds this process's counts to the sums, each once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._published: dict[tuple[str, str], float] = {}

    async def publish(self) -> None:
        """Add what was counted since the last time."""
        counted = dict(_counted())
        news = [
            Sum(name, json.loads(labels), value - self._published.get((name, labels), 0.0))
            for (name, labels), value in sorted(counted.items())
            if value != self._published.get((name, labels))
        ]
        if news:
            async with self._database.transaction() as session:
                await sums.add(session, news)
        self._published = counted


def exposition(known: Sequence[Sum]) -> bytes:
    """The sums in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Sums(known))
    return generate_latest(registry)


class _Sums(Collector):
    def __init__(self, known: Sequence[Sum]) -> None:
        self._known = known

    def collect(self) -> Iterable[Metric]:
        for family in REGISTRY.collect():
            metric = Metric(family.name, family.documentation, family.type)
            names = [family.name + suffix for suffix in SUFFIXES[family.type]]
            for one in sorted((one for one in self._known if one.name in names), key=partial(_place, names)):
                metric.add_sample(one.name, one.labels, one.value)
            yield metric


def _place(names: list[str], one: Sum) -> tuple[list[str], int, float]:
    """Series by their labels; within one, its buckets from small to large and then count and sum."""
    others = [f"{name}={value}" for name, value in sorted(one.labels.items()) if name != "le"]
    return others, names.index(one.name), float(one.labels.get("le", "0"))


def _counted() -> Iterator[tuple[tuple[str, str], float]]:
    for family in REGISTRY.collect():
        names = [family.name + suffix for suffix in SUFFIXES[family.type]]
        for sample in family.samples:
            if sample.name in names:
                yield (sample.name, json.dumps(sample.labels, sort_keys=True)), sample.value
