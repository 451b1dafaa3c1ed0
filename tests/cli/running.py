"""The command as a user runs it: a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

PLUGINS = Path(__file__).parents[1] / "plugins"


def recast(*arguments: object, cache: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `recast ARGUMENTS` to its end. ``cache``: where it keeps templates."""
    settings = {"RECAST_PLUGINS_DIR": str(PLUGINS), "OMP_NUM_THREADS": "1", "COLUMNS": "200", **environment}
    if cache is not None:
        settings["XDG_CACHE_HOME"] = str(cache)
    command = [sys.executable, "-m", "app.cli", *map(str, arguments)]
    return subprocess.run(
        command, env={**os.environ, **settings}, capture_output=True, text=True, timeout=300, check=False
    )
