"""The catalog: what a plug-in does when it is imported costs its own architectures and nothing else."""

import asyncio
from pathlib import Path

import pytest

from app.api.catalog import CatalogReader
from app.database import catalogs
from app.database.catalogs import Described
from app.domain.catalog import Catalog
from app.domain.conversion import State
from app.domain.errors import Unavailable, UnknownArchitecture
from tests.jobs.service import TIMEOUT, Client, StartWorker

pytestmark = pytest.mark.anyio

FAULTS = {
    "hangs": "longer than 10 seconds",
    "leaves": "status 3",
    "crashes": "SIGSEGV",
    "raises": "RuntimeError: no licence",
    "forges": "process",
    "claims": "'torchvision/resnet18' is not a name",
    "takes": "'good/net' is already taken",
}


def write(directory: Path, *names: str) -> None:
    directory.mkdir(exist_ok=True)
    for name in names:
        (directory / f"{name}.py").write_text(f'@architecture("acme/{name}", signature=S)\ndef build(): ...\n')


async def published(client: Client, until: str, whole: bool = True) -> Catalog:
    """The catalog, once it knows a plug-in, and all others."""
    reader = CatalogReader(client.database, 60)
    async with asyncio.timeout(TIMEOUT):
        while True:
            try:
                catalog = await reader.current()
            except Unavailable:
                catalog = Catalog([])
            known = any(entry.plugin == until for entry in catalog.search())
            if known and not (whole and catalog.undescribed):
                return catalog
            await asyncio.sleep(0.05)


async def test_broken_plugins_cost_their_own_architectures_only_and_are_listed_with_the_reason(
    client: Client, start_worker: StartWorker, tmp_path: Path
) -> None:
    write(tmp_path / "plugins", "good", *FAULTS)
    worker = start_worker(plugins_dir=tmp_path / "plugins", inspection_timeout=10)
    catalog = await published(client, until="good")
    assert {entry.name: (entry.plugin, entry.library) for entry in catalog.search()} == {
        "good/net": ("good", "plugin"),
        "test/net": (None, "test"),
    }
    told = {plugin.name: plugin.error for plugin in catalog.broken}
    assert told.keys() == FAULTS.keys()
    for name, words in FAULTS.items():
        assert words in told[name]
        for asked in (name, f"{name}/anything", *(() if name == "takes" else (f"acme/{name}",))):
            with pytest.raises(UnknownArchitecture, match="could not be loaded"):
                catalog.get(asked)
    assert worker.poll() is None
    log = (tmp_path / "worker.log").read_text()
    assert all(f"plugin={name}" in log or f'"plugin": "{name}"' in log for name in FAULTS)


async def test_a_changed_plugin_is_noticed(client: Client, start_worker: StartWorker, tmp_path: Path) -> None:
    write(tmp_path / "plugins", "first")
    start_worker(plugins_dir=tmp_path / "plugins")
    await published(client, until="first")
    write(tmp_path / "plugins", "second")
    catalog = await published(client, until="second")
    assert [entry.name for entry in catalog.search()] == ["first/net", "second/net", "test/net"]


async def test_a_plugin_that_takes_its_time_is_named_and_hinders_no_other(
    client: Client, start_worker: StartWorker, tmp_path: Path
) -> None:
    write(tmp_path / "plugins", "good", "hangs")
    start_worker(plugins_dir=tmp_path / "plugins", inspection_timeout=60)
    catalog = await published(client, until="good", whole=False)
    assert catalog.undescribed == ("hangs",)
    for name in ("acme/hangs", "hangs/net"):
        with pytest.raises(Unavailable, match="still being described: hangs"):
            catalog.get(name)
    with pytest.raises(UnknownArchitecture):
        catalog.get("torchvision/resnet17")
    assert (await client.ended(await client.submit_named("good/net"))).state is State.succeeded


async def test_workers_take_only_what_they_offer(client: Client, start_worker: StartWorker, tmp_path: Path) -> None:
    write(tmp_path / "one", "first")
    write(tmp_path / "two", "second")
    workers = {name: start_worker(plugins_dir=tmp_path / at) for name, at in (("first", "one"), ("second", "two"))}
    await published(client, until="first")
    await published(client, until="second")
    ids = [(name, await client.submit_named(f"{name}/net", name.encode())) for name in ("second", "second", "first")]
    for name, id in ids:
        conversion = await client.ended(id)
        assert (conversion.state, conversion.attempt) == (State.succeeded, 1)
        assert conversion.worker.endswith(f":{workers[name].pid}")


async def test_an_architecture_of_a_library_may_be_lacked_by_one_worker(client: Client) -> None:
    entries = '[{"name": "timm/new"}]'
    await client.execute(
        f"insert into catalogs (digest, entries) values ('new', '{entries}')",
        "insert into catalogs (digest, entries) values ('old', '[]')",
    )
    async with client.database.transaction() as session:
        assert await catalogs.is_lacked_by_one(session, "timm/new")
        assert await catalogs.offered_by_others(session, "old") == {"timm/new"}
    await client.execute("delete from catalogs where digest = 'old'")
    async with client.database.transaction() as session:
        assert not await catalogs.is_lacked_by_one(session, "timm/new")


async def test_what_nobody_offers_any_more_is_refused_and_not_waited_for(
    client: Client, start_worker: StartWorker, tmp_path: Path
) -> None:
    start_worker()
    await client.execute(
        "insert into catalogs (digest, entries, seen_at) values ('old', '[{\"name\": \"old/net\"}]', '2026-01-01')"
    )
    assert (await client.ended(await client.submit_named("old/net"))).attempt == 1


async def test_a_catalog_of_an_earlier_start_is_told_from_one_of_this(
    client: Client, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def known(supervisor: str | None) -> bool:
        async with client.database.transaction() as session:
            return await catalogs.is_of_this_start(session, supervisor, 60)

    async with client.database.transaction() as session:
        await catalogs.publish(session, Described("old", []))
    assert await known(None)  # no worker lives: the last catalog is the one
    assert not await known("this run")
    await client.execute("insert into workers (id, name, room, started_at) values (7, 'w', 'r', now() + '1 hour')")
    assert not await known(None)
    monkeypatch.setenv("RECAST_SUPERVISOR", "this run")
    start_worker()
    async with asyncio.timeout(TIMEOUT):
        while not await known("this run"):
            await asyncio.sleep(0.05)
