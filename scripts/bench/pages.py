"""Milliseconds until the pages of lists are there, with many conversions in the database.

Each page is asked for over loopback from an api of its own (`recast api`): what is measured is the server's time and
that of one local connection. The aim is 300 ms for 10,000 conversions (tests/web holds the list to one query).
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
from service import free_port, wait_until_ready

from app.database.embedded import EmbeddedPostgres

INSERT = """
insert into conversions
       (id, state, checkpoint_sha256, checkpoint_filename, architecture, target, options, verdict, created_at)
select 'cnv_' || md5(n::text), (array['succeeded', 'failed', 'canceled'])[1 + n %% 3],
       md5(n::text), 'run-' || n || '.pth',
       'torchvision/resnet' || n %% 200, (array['onnx', 'torchscript'])[1 + n %% 2],
       jsonb_build_object('filler', repeat('x', 500)), 'pass', now() - n * interval '1 minute'
from generate_series(1, %s) n
"""
PAGES = {
    "list": "/conversions",
    "list, filtered": "/conversions?state=failed&target=onnx",
    "start": "/",
    "as JSON": "/v1/conversions?limit=50",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversions", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    told = parser.parse_args()
    with running_api(told.conversions) as client:
        figures = {name: milliseconds(client, path, told.runs) for name, path in PAGES.items()}
    print(f"| page, {told.conversions:,} conversions | first ms | median of {told.runs} | p95 |\n|---|---|---|---|")
    for name, times in figures.items():
        p95 = statistics.quantiles(times, n=20)[18]
        print(f"| {name} | {times[0]:.0f} | {statistics.median(times):.0f} | {p95:.0f} |")
    if told.json:
        told.json.write_text(json.dumps(figures))


def milliseconds(client: httpx.Client, path: str, runs: int) -> list[float]:
    """Of each request, in the order in which they were made."""
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        answer = client.get(path, headers={"Accept": "text/html" if not path.startswith("/v1") else "application/json"})
        times.append(1000 * (time.perf_counter() - started))
        assert answer.status_code == 200, answer.text
    return times


@contextmanager
def running_api(conversions: int) -> Iterator[httpx.Client]:
    """A client of `recast api` whose database holds so many finished conversions."""
    command = str(Path(sys.executable).with_name("recast"))
    with (
        tempfile.TemporaryDirectory(prefix="recast-bench-") as directory,
        EmbeddedPostgres(Path(directory)) as database,
    ):
        environment = {**os.environ, "RECAST_DATABASE_URL": database.url}
        subprocess.run([command, "migrate"], env=environment, check=True, stdout=subprocess.DEVNULL)
        with psycopg.connect(database.url) as connection:
            connection.execute(INSERT, [conversions])
        with psycopg.connect(database.url, autocommit=True) as connection:
            connection.execute("vacuum analyze conversions")
        port = free_port()
        with (Path(directory) / "service.log").open("w+b") as log:
            api = subprocess.Popen(
                [command, "api", "--port", str(port), "--data-dir", directory], env=environment, stdout=log, stderr=log
            )
            try:
                with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                    wait_until_ready(client, api, log.name, "/healthz")
                    yield client
            finally:
                api.send_signal(signal.SIGTERM)
                api.wait(timeout=60)


if __name__ == "__main__":
    main()
