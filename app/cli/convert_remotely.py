"""`recast convert --server`: the same order, carried out by a service, through its own client."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import typer
from recast_client import Client, Conversion, Unreachable
from recast_client import RecastError as Answered
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from app.cli.conversion_order import Order
from app.cli.failure import tell
from app.cli.present import exit_status, show_remote
from app.domain.errors import Problem, RecastError, Unavailable
from app.domain.report import Verdict

PROBLEM_MEMBERS = ("code", "title", "status", "detail", "stage", "hint")
REQUEST_MEMBERS = ("type", "instance", "request_id", "conversion", "location")
INTERRUPTED = 130


class Refused(RecastError):
    """A problem document that the service answered with."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self._problem = problem

    def problem(self) -> Problem:
        return self._problem


@contextmanager
def service(server: str) -> Iterator[Client]:
    """A client of the service, with the key of the environment's RECAST_API_KEY where one is set.

    What the service refuses within is raised as Refused, and no answer as Unavailable.
    """
    try:
        with Client(server, os.environ.get("RECAST_API_KEY")) as client:
            yield client
    except Unreachable as error:
        raise Unavailable(error.detail) from None
    except Answered as error:
        raise Refused(problem_of(error.document)) from None


def convert_remotely(order: Order, server: str) -> int:
    """Upload, follow, download; gives the exit status. Raises Refused, Unavailable."""
    with service(server) as client, _bars() as bars:
        conversion = followed(client, _submitted(client, order, bars), bars)
        delivered = conversion.state == "succeeded" or (order.unverified and conversion.artifact is not None)
        if delivered:
            _fetch_results(client, conversion, order, bars)
        elif order.report is not None and conversion.links["report"] is not None:
            client.fetch(conversion.links["report"], order.report, headers=_report_kind(order.report))
    return told(conversion.document, order.output if delivered else None)


def told(conversion: Mapping[str, Any], written: Path | None) -> int:
    """Show how a conversion ended; gives the exit status."""
    if conversion["verdict"] is not None:
        show_remote(conversion, written)
    if conversion["problem"] is not None:
        tell(problem_of(conversion["problem"]))
        return 1
    return exit_status(Verdict(conversion["verdict"]))


def followed(client: Client, conversion: Conversion, bars: Progress) -> Conversion:
    """The conversion when it has finished; meanwhile its stage and progress are shown. An interrupt asks to cancel."""
    task = bars.add_task(conversion.state, total=1.0)
    try:
        bars.console.print(f"conversion {conversion.id}", highlight=False)
        for event in client.follow(conversion):
            bars.update(task, description=event.stage or event.state, completed=event.progress)
    except KeyboardInterrupt:
        bars.stop()
        _offer_to_cancel(client, conversion)
        raise typer.Exit(INTERRUPTED) from None
    bars.remove_task(task)
    return client.get(conversion.id)


def _offer_to_cancel(client: Client, conversion: Conversion) -> None:
    """Where nobody can be asked, the conversion goes on: a script that was ended may be run again, and finds it."""
    if sys.stdin.isatty() and typer.confirm(f"Cancel {conversion.id} on the server too?", default=True, err=True):
        client.cancel(conversion)
        typer.echo(f"recast: {conversion.id} is canceled", err=True)
    else:
        typer.echo(
            f"recast: {conversion.id} goes on: recast show {conversion.id}, recast cancel {conversion.id}", err=True
        )


def _submitted(client: Client, order: Order, bars: Progress) -> Conversion:
    task = bars.add_task(f"upload {order.weights.name}", total=None)
    submitted = client.convert(
        order.weights,
        wait=False,
        architecture=order.architecture,
        target=order.options.target,
        options=order.given_options,
        architecture_options=order.architecture_options,
        accept=("pass", "pass_with_notes", "inconclusive"),  # told by the exit status, as without a server
        probes=order.probes,
        progress=partial(_advance, bars, task),
    )
    bars.remove_task(task)
    return submitted


def _fetch_results(client: Client, conversion: Conversion, order: Order, bars: Progress) -> None:
    links = conversion.links
    unverified = {"unverified": "true"} if order.unverified else {}
    wanted = [(links["artifact"], order.output, {**unverified})]
    if conversion.artifact_data is not None:
        data = order.output.with_name(Path(conversion.artifact_data.filename).name)
        wanted.append((f"{links['self']}/artifact", data, {**unverified, "part": "data"}))
    if order.bundle is not None:
        wanted.append((links["bundle"], order.bundle, {**unverified}))
    for link, place, parameters in wanted:
        task = bars.add_task(f"download {place.name}", total=None)
        client.fetch(str(link), place, parameters, progress=partial(_advance, bars, task))
    if order.report is not None:
        client.fetch(str(links["report"]), order.report, headers=_report_kind(order.report))


def _advance(bars: Progress, task: TaskID, done: int, size: int) -> None:
    bars.update(task, completed=done, total=size)


def _report_kind(path: Path) -> dict[str, str]:
    return {"Accept": "text/html" if path.suffix.lower() in (".html", ".htm") else "application/json"}


def problem_of(document: Mapping[str, Any]) -> Problem:
    """A problem document, or the ``problem`` of a conversion, as a problem."""
    known = {name: document[name] for name in PROBLEM_MEMBERS if name in document}
    extra = {k: v for k, v in document.items() if k not in PROBLEM_MEMBERS and k not in REQUEST_MEMBERS}
    defaults = {"code": "http_error", "title": "The service refused", "status": 0, "detail": ""}
    return Problem(**{**defaults, **known}, extra=extra)


def _bars() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    return Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty())
