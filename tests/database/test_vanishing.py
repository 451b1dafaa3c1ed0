"""A database whose machine vanishes: packets are dropped, and nobody says so."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from app.database.embedded import EmbeddedPostgres
from scripts.fleet import Network

ASKING = """
import asyncio, sys
import psycopg
from sqlalchemy import text
from app.database.session import TCP, Database
from app.jobs.patience import DatabaseAway

async def ask(database):
    async with database.transaction() as session:
        await session.execute(text("select pg_sleep(3600)"))

async def listen(url):
    async with await psycopg.AsyncConnection.connect(url, **TCP, autocommit=True) as connection:
        await connection.execute("listen anything")
        async for _ in connection.notifies():
            pass

async def told(name, waiting, lost):
    try:
        await waiting
    except lost:
        print(name, flush=True)

async def main(url):
    database = Database(url)
    await asyncio.gather(
        told("query", ask(database), DatabaseAway), told("listener", listen(url), psycopg.OperationalError)
    )
    await told("connection", database.ping(), DatabaseAway)

asyncio.run(main(sys.argv[1]))
"""
ASKED = "select from pg_stat_activity where query in ('select pg_sleep(3600)', 'listen anything') and pid <> %s"
LIMIT = 120.0
"""Seconds; without keepalives it would be two hours."""


def test_who_waits_for_an_answer_or_for_news_hears_of_it() -> None:
    network = Network()
    if not network.has_namespaces:
        pytest.skip("this user may make no network namespaces, and packets cannot be dropped")
    with tempfile.TemporaryDirectory(prefix="recast-vanishing-") as directory:
        place = Path(directory)
        place.chmod(0o755)  # the server's user passes through
        try:
            with EmbeddedPostgres(place, {"listen_addresses": network.host}) as server:
                assert heard(network, server.url, place) == ["connection", "listener", "query"]
        finally:
            network.remove()


def heard(network: Network, url: str, place: Path) -> list[str]:
    """What a machine says that loses its way to the database at ``url`` while it asks."""
    data = place / "postgres" / "data"
    with (data / "pg_hba.conf").open("a") as authentication:
        authentication.write(f"host all all {network.net}.0/24 scram-sha-256\n")
    os.kill(int((data / "postmaster.pid").read_text().split()[0]), signal.SIGHUP)
    parts = urlsplit(url)
    over_tcp = urlunsplit((parts.scheme, f"{parts.netloc}{network.host}:5432", parts.path, "", ""))
    _, prefix = network.add("asking")
    with psycopg.connect(url, autocommit=True) as here:
        asking = subprocess.Popen([*prefix, sys.executable, "-c", ASKING, over_tcp], stdout=subprocess.PIPE, text=True)
        try:
            while len(here.execute(ASKED, [here.info.backend_pid]).fetchall()) < 2:
                assert asking.poll() is None
            network.cut("asking")
            said, _ = asking.communicate(timeout=LIMIT)
        finally:
            asking.kill()
            asking.wait()
    return sorted(said.split())
