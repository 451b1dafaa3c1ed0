"""The command `recast`. Each command imports what it needs when it runs, so that `--help` answers at once."""

from app.cli.commands import app
from app.processors import bound_spinning


def main() -> None:
    """Entry point of the installed command."""
    bound_spinning()
    app()
