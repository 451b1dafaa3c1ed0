"""`recast list | show | cancel | download | logs`: conversions of a service, through its own client."""

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import typer
from recast_client import Conversion
from rich.table import Table

from app.cli.convert_remotely import service, told
from app.cli.present import print_table

COLUMNS = ("id", "state", "verdict", "architecture", "target", "created_at")


def list_conversions(server: str, filters: Mapping[str, str], most: int, *, as_json: bool) -> None:
    """Print the newest conversions that the filters admit."""
    with service(server) as client:
        found = list(islice(client.conversions(**filters), most))
    if as_json:
        _print_json([conversion.document for conversion in found])
        return
    table = Table(*COLUMNS, box=None, pad_edge=False)
    for conversion in found:
        table.add_row(*(str(conversion.document[column] or "") for column in COLUMNS))
    print_table(table)


def show_conversion(server: str, conversion_id: str, *, as_json: bool) -> int:
    """Print one conversion; gives the exit status of how it ended, 0 while it has not."""
    with service(server) as client:
        conversion = client.get(conversion_id)
    if as_json:
        _print_json(conversion.document)
    if conversion.finished:
        return told(conversion.document, None) if not as_json else _status(conversion)
    if not as_json:
        typer.echo(f"{conversion.id} {conversion.state} {conversion.stage or ''} {conversion.progress:.0%}")
    return 0


def cancel_conversions(server: str, ids: Sequence[str], *, as_json: bool) -> None:
    """Ask the service to stop them."""
    with service(server) as client:
        canceled = [client.cancel(client.get(conversion_id)) for conversion_id in ids]
    if as_json:
        _print_json([conversion.document for conversion in canceled])
    else:
        for conversion in canceled:
            typer.echo(f"{conversion.id} {conversion.state}")


def download_conversion(
    server: str, conversion_id: str, folder: Path, *, bundle: bool, unverified: bool, as_json: bool
) -> None:
    """Fetch the artifact's files, or the bundle."""
    with service(server) as client:
        paths = client.download(client.get(conversion_id), folder, bundle=bundle, unverified=unverified)
    if as_json:
        _print_json([str(path) for path in paths])
    else:
        for path in paths:
            typer.echo(str(path))


def print_log(server: str, conversion_id: str) -> None:
    """Print what the conversion's process printed."""
    with service(server) as client:
        typer.echo(client.log(client.get(conversion_id)), nl=False)


def _status(conversion: Conversion) -> int:
    return {"pass": 0, "pass_with_notes": 0, "within_budget": 0, "inconclusive": 3}.get(conversion.verdict or "", 1)


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2))
