"""A worker of a later version, in the middle of an upgrade, writes more than this one's api knows: that is left out."""

import json
from typing import Any

import httpx
import psycopg
import pytest

from app.domain.conversion import State
from app.domain.errors import ParityFailed
from app.domain.report import ConversionReport
from tests.api.server import Backstage, submit
from tests.delivery.reports import report

LATER = {"of_a_later_version": {"a": 1}}
WRITTEN = {
    "catalogs": ("entries", "broken"),
    "checkpoint_owners": ("inspection", "parameters", "problem"),
    "conversions": ("problem",),
}


def later(written: Any) -> Any:
    if isinstance(written, list):
        return [later(one) for one in written]
    if not isinstance(written, dict):
        return written
    nested = {name: later(written[name]) for name in ("signature", "inputs") if name in written}
    return {**written, **nested, **LATER}


@pytest.fixture
def of_a_later_version(backstage: Backstage) -> None:
    with psycopg.connect(backstage.database_url) as connection:
        for table, columns in WRITTEN.items():
            for column in columns:
                rows = connection.execute(f"select ctid, {column} from {table} where {column} is not null").fetchall()
                for place, written in rows:
                    told = (json.dumps(later(written)), place)
                    connection.execute(f"update {table} set {column} = %s where ctid = %s", told)


def test_the_api_offers_and_takes_what_a_later_version_described(
    of_a_later_version: None, client: httpx.Client, backstage: Backstage
) -> None:
    assert client.get("/v1/architectures/torchvision/resnet18").json()["signature"]["inputs"][0]["name"] == "input"
    assert submit(client).status_code == 202


@pytest.fixture
def ended(client: httpx.Client, backstage: Backstage) -> str:
    path: str = submit(client).headers["location"]
    backstage.finish(path.rsplit("/", 1)[-1], state=State.failed, problem=ParityFailed("Wrong.").problem())
    return path


def test_the_api_shows_an_end_and_a_file_that_a_later_version_wrote(
    ended: str, of_a_later_version: None, client: httpx.Client
) -> None:
    conversion = client.get(ended)
    assert (conversion.status_code, conversion.json()["problem"]["code"]) == (200, "parity_failed")
    assert client.get(f"/v1/checkpoints/{conversion.json()['checkpoint']['sha256']}").status_code == 200


def test_a_report_of_a_later_version_is_read_without_what_is_not_known() -> None:
    known = report()
    written = {**json.loads(known.model_dump_json()), **LATER}
    written["verification"] |= LATER
    assert ConversionReport.kept(json.dumps(written)) == known
    assert ConversionReport.kept(written) == known
