"""The command as a user runs it, in a process of its own; forked from one that has imported what the command imports.

tests/cli/test_working_directory.py and tests/docs start it anew, as it is installed.
"""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

PLUGINS = Path(__file__).parents[1] / "plugins"
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["app.cli.commands", "app.conversion.pipeline", "onnx", "onnxruntime", "onnxscript"])


def recast(*arguments: object, cache: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `recast ARGUMENTS` to its end. ``cache``: where it keeps templates."""
    settings = {"RECAST_PLUGINS_DIR": str(PLUGINS), "OMP_NUM_THREADS": "1", "COLUMNS": "200", **environment}
    if cache is not None:
        settings["XDG_CACHE_HOME"] = str(cache)
    command = ["recast", *map(str, arguments)]
    with TemporaryDirectory() as said:
        out, err = Path(said, "out"), Path(said, "err")
        process = FORKS.Process(target=_run, args=(command, {**os.environ, **settings}, os.getcwd(), out, err))
        process.start()
        process.join(300)
        process.kill()  # where it has not ended
        process.join()
        return subprocess.CompletedProcess(command, process.exitcode or 0, out.read_text(), err.read_text())


def _run(command: list[str], environment: dict[str, str], directory: str, out: Path, err: Path) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    for descriptor, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    sys.argv = command
    from app.cli import main

    main()
