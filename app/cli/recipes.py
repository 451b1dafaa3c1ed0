"""`recast recipes`: architectures that are told as JSON, registered at a service."""

import json
from pathlib import Path

import typer

from app.cli.convert_remotely import service
from app.domain.errors import InvalidRequest


def register_recipe(server: str, file: Path, *, as_json: bool) -> None:
    """Register the recipe in a file and print its version."""
    try:
        recipe = json.loads(file.read_text())
    except ValueError as error:
        raise InvalidRequest(f"{file} is not JSON: {error}.") from None
    if not isinstance(recipe, dict):
        raise InvalidRequest(f"{file} holds no JSON object.")
    with service(server) as client:
        found = client.register(recipe)
    typer.echo(json.dumps(found, indent=2) if as_json else f"{found['name']}@{found['recipe']}")


def delete_recipe(server: str, name: str) -> None:
    """Delete a recipe, or one version of it."""
    with service(server) as client:
        client.unregister(name)
