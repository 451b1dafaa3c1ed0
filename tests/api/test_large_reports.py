"""Reports that are too large to become objects of the api: they are read by a process of its own, one at a time."""

import subprocess
import sys

import httpx
import pytest

from app.api import reports
from app.delivery import report_process
from app.domain.report import ConversionReport
from tests.api.server import Backstage, submit
from tests.delivery.reports import report

HTML = {"Accept": "text/html"}


def large() -> ConversionReport:
    """Of 12 MB, by a ledger whose entries are no more than somebody's words."""
    done = report()
    ledger = done.verification.ledger
    assert ledger is not None
    entries = ledger.entries[:1] * 60_000
    verification = done.verification.model_copy(update={"ledger": ledger.model_copy(update={"entries": entries})})
    return done.model_copy(update={"verification": verification})


@pytest.fixture
def conversion(client: httpx.Client, backstage: Backstage, monkeypatch: pytest.MonkeyPatch) -> str:
    """Path of one with a large report, where no report is made objects of here."""
    path = submit(client).headers["location"]
    backstage.finish(path.rsplit("/", 1)[-1], finished_report=large())

    class Never:
        @staticmethod
        def model_validate_json(_: bytes) -> None:
            raise AssertionError("read in the api's own process")

    monkeypatch.setattr(reports, "ConversionReport", Never)
    return path


def test_a_large_report_is_shown_compared_and_bundled_without_being_read_here(client: httpx.Client, conversion: str):
    page = client.get(f"{conversion}/report", headers=HTML)
    assert page.status_code == 200
    assert "Recast" in page.text
    assert len(page.content) < 2 << 20
    whole = client.get(conversion.replace("/v1", ""), headers=HTML)
    assert whole.status_code == 200
    assert f'href="{conversion}/report"' in whole.text
    assert client.get(f"{conversion}/bundle").status_code == 200
    compared = client.get(f"{conversion}/compare/{conversion.rsplit('/', 1)[-1]}").json()
    assert compared["first"]["latency"] == large().verification.latency.artifact_p50  # type: ignore[union-attr]
    assert client.get(f"{conversion}/report").json()["verification"]["verdict"] == "pass_with_notes"


def test_a_page_is_the_same_wherever_it_is_made(client: httpx.Client, backstage: Backstage, monkeypatch):
    path = submit(client).headers["location"]
    backstage.finish(path.rsplit("/", 1)[-1])
    here = client.get(f"{path}/report", headers=HTML).content
    monkeypatch.setattr(reports, "SMALL", 0)
    assert client.get(f"{path}/report", headers=HTML).content == here


def test_what_even_a_process_of_its_own_cannot_read_is_told(client: httpx.Client, conversion: str, monkeypatch):
    monkeypatch.setattr(reports, "SECONDS", 0.01)
    refused = client.get(f"{conversion}/report", headers={"Accept": "text/html;q=0.9, application/problem+json"})
    assert refused.status_code == 409
    assert client.get(f"{conversion}/report").status_code == 200


def test_a_report_that_makes_a_page_of_any_size_is_shown_as_json_alone(client: httpx.Client, backstage: Backstage):
    path = submit(client).headers["location"]
    done = report()
    notes = done.checkpoint.model_copy(update={"notes": ("'" * 60_000,) * 100})
    backstage.finish(path.rsplit("/", 1)[-1], finished_report=done.model_copy(update={"checkpoint": notes}))
    assert client.get(f"{path}/report", headers=HTML).status_code == 409
    assert client.get(f"{path}/report").status_code == 200


def test_a_document_that_is_no_report_ends_its_reader_alone():
    command = [sys.executable, "-m", "app.delivery.report_process", "figures"]
    ended = subprocess.run(command, input=b"[]", capture_output=True, check=False)
    assert (ended.returncode, ended.stdout) == (report_process.NOT_READABLE, b"")
