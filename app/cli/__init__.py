"""The command `recast`. Each command imports what it needs when it runs, so that `--help` answers at once."""

import os
import sys

from app.cli.commands import app
from app.processors import bound_spinning


def main() -> None:
    """Entry point of the installed command."""
    bound_spinning()
    _own_standard_output()
    app()


def _own_standard_output() -> None:
    """Keep standard output for what commands tell, which others read.

    Whatever else writes to descriptor 1, such as native libraries and children, gets standard error.
    """
    if sys.stdout is None or sys.stderr is None:  # the caller closed one of them
        return
    own = os.dup(sys.stdout.fileno())
    buffering = 1 if sys.stdout.isatty() else -1
    sys.stdout = os.fdopen(own, "w", buffering, encoding=sys.stdout.encoding, errors=sys.stdout.errors)
    os.dup2(sys.stderr.fileno(), 1)
