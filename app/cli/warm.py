"""`recast templates warm`: a conversion of made-up weights for every architecture and target that is named."""

import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

import typer

from app.cli.conversion_order import order
from app.cli.convert_here import convert_here
from app.cli.convert_remotely import convert_remotely
from app.processors import available_cores


def warm(names: Sequence[str], targets: Sequence[str], server: str | None, plugins_dir: Path | None) -> int:
    """Gives the highest of the conversions' exit statuses. Raises UnknownArchitecture, UsageError."""
    from app.architectures.calibration import save_checkpoint
    from app.architectures.registry import load_registry

    with redirect_stdout(sys.stderr):  # what a plug-in prints is not the command's output
        registry = load_registry(plugins_dir)
    worst = 0
    for name in names:
        with tempfile.TemporaryDirectory(prefix="recast-") as directory:
            with redirect_stdout(sys.stderr):
                weights = save_checkpoint(registry, name, {}, Path(directory) / "rehearsal.pth")
            for target in targets:
                typer.echo(f"{name} to {target}")
                wanted = order(
                    weights=weights,
                    architecture=name,
                    target=target,
                    options="{}",
                    architecture_options="{}",
                    output=Path(directory) / "artifact",
                    report=None,
                    bundle=None,
                    probes=None,
                    unverified=False,
                )
                if server is not None:
                    worst = max(worst, convert_remotely(wanted, server))
                else:
                    worst = max(worst, convert_here(wanted, plugins_dir, available_cores()))
    return worst
