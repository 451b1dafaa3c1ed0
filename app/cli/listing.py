"""`recast architectures`: the catalog, here or on a server."""

import json
from pathlib import Path
from typing import Any

import typer

from app.cli.convert_remotely import service
from app.cli.present import show_architectures
from app.domain.errors import UnknownArchitecture

Found = tuple[list[dict[str, Any]], list[dict[str, Any]]]
"""Entries, and plug-ins that could not be loaded."""


def list_architectures(
    query: str, family: str | None, server: str | None, plugins_dir: Path | None, as_json: bool
) -> None:
    """Print the entries that match, or the whole description when ``query`` is a name."""
    found = _from_server(server, query, family) if server is not None else _here(query, family, plugins_dir)
    entries, broken = found
    for plugin in broken:
        typer.secho(f"recast: the plug-in {plugin['name']} could not be loaded: {plugin['error']}", fg="red", err=True)
    exact = [entry for entry in entries if entry["name"] == query]
    if exact or as_json:
        typer.echo(json.dumps(exact[0] if exact else entries, indent=2))
        return
    if not entries:
        raise UnknownArchitecture(f"No architecture matches {query!r}.", hint="recast architectures lists all.")
    show_architectures(entries)


def _here(query: str, family: str | None, plugins_dir: Path | None) -> Found:
    from app.architectures.plugin_catalog import assembled
    from app.architectures.plugin_files import find_plugins
    from app.architectures.registry import load_registry
    from app.cli.plugin_trial import tried
    from app.domain.catalog import Catalog

    libraries = load_registry().library_catalog()
    entries, broken = assembled(libraries, [tried(plugins_dir, plugin) for plugin in find_plugins(plugins_dir)])
    found = Catalog(entries).search(query, family)
    return [json.loads(entry.model_dump_json()) for entry in found], [plugin.model_dump() for plugin in broken]


def _from_server(server: str, query: str, family: str | None) -> Found:
    wanted = {"query": query, **({"family": family} if family else {})}
    with service(server) as client:
        entries, broken = client.architectures(**wanted)
        if any(entry["name"] == query for entry in entries):
            return [client.architecture(query)], broken
    return entries, broken
