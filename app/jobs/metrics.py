"""What a worker counts, for Prometheus. With several processes on one machine, set PROMETHEUS_MULTIPROC_DIR."""

from prometheus_client import Counter, Gauge, Histogram

conversions_ended = Counter("recast_conversions_ended", "Conversions that ended.", ["state", "target"])
stage_seconds = Histogram(
    "recast_stage_seconds",
    "Seconds that a stage of a conversion took.",
    ["stage"],
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000),
)
queue_seconds = Histogram(
    "recast_queue_seconds",
    "Seconds from submission to the start of the first attempt.",
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000),
)
children_running = Gauge("recast_children_running", "Conversion processes that run now.", multiprocess_mode="livesum")
jobs_rescued = Counter("recast_jobs_rescued", "Jobs taken over from workers that died.")
