"""How a command fails: in words on standard error, with what to do next, without a traceback for a designed error."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import typer

from app.domain.errors import Problem, RecastError

Arguments = ParamSpec("Arguments")

FAILED = 1
USAGE = 2
SHOWN = 10
"""Entries of a list that are printed."""


class UsageError(RecastError):
    code, status, title = "usage", 400, "The command cannot run like this"
    hint = "Add --help to see what it takes."


def failing_in_words(command: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Print RecastError as text and end with status 1; one line and status 2 where the command line itself is wrong."""

    @wraps(command)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        from pydantic import ValidationError

        try:
            command(*args, **kwargs)
        except UsageError as error:
            typer.secho(f"recast: {error.detail} {error.told_hint}", fg="red", err=True)
            raise typer.Exit(USAGE) from None
        except RecastError as error:
            tell(error.problem())
            raise typer.Exit(FAILED) from None
        except ValidationError as error:
            for fault in error.errors():
                place = ".".join(str(part) for part in fault["loc"])
                typer.echo(f"recast: {error.title}.{place}: {fault['msg']}", err=True)
            raise typer.Exit(USAGE) from None
        except KeyboardInterrupt:
            typer.echo("recast: interrupted", err=True)
            raise typer.Exit(130) from None

    return run


def tell(problem: Problem) -> None:
    """A problem as text on standard error."""
    stage = f" (stage {problem.stage})" if problem.stage else ""
    typer.secho(f"recast: {problem.title}: {problem.code}{stage}", fg="red", err=True)
    typer.echo(f"  {problem.detail}", err=True)
    for name, value in problem.extra.items():
        if isinstance(value, list) and value:
            typer.echo(f"  {name.replace('_', ' ')}:", err=True)
            for item in value[:SHOWN]:
                typer.echo(f"    {item}", err=True)
            whole = problem.extra.get(f"{name}_count", len(value))
            if whole > SHOWN:
                typer.echo(f"    ... and {whole - SHOWN} more", err=True)
    if problem.hint:
        typer.echo(f"  {problem.hint}", err=True)
