"""Trying a plug-in in a process of its own, so that one that hangs or exits costs the command nothing else."""

import multiprocessing
import sys
from contextlib import redirect_stdout
from multiprocessing.connection import Connection
from pathlib import Path

from pydantic import TypeAdapter

from app.architectures.plugin_catalog import MOST_BYTES, Described, believed, broken
from app.architectures.plugin_files import FoundPlugin
from app.domain.architecture import ArchitectureDescription
from app.domain.errors import RecastError

SECONDS = 60.0
"""For one plug-in to be imported and described."""

_entries = TypeAdapter(tuple[ArchitectureDescription, ...])


def tried(plugins_dir: Path | None, plugin: FoundPlugin) -> Described:
    """The plug-in's architectures, or why it has none. torch must have been imported: the process is a fork."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_describe, args=(plugins_dir, plugin.name, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(SECONDS):
            return broken(plugin, f"It ran longer than {SECONDS:g} seconds.")
        said = ours.recv_bytes(MOST_BYTES)
        return believed(plugin, _entries.validate_json(said[1:])) if said[:1] == b"+" else broken(plugin, said.decode())
    except EOFError:
        process.join(1)
        return broken(plugin, f"Its process ended with status {process.exitcode}.")
    except (OSError, ValueError):
        return broken(plugin, "It told what is no description of architectures.")
    finally:
        process.kill()
        process.join()


def _describe(plugins_dir: Path | None, name: str, told: Connection) -> None:
    from app.architectures.registry import load_registry

    try:
        with redirect_stdout(sys.stderr):  # what it prints is not the command's output
            described = load_registry(plugins_dir, name).plugin_catalog()
        told.send_bytes(b"+" + _entries.dump_json(described))
    except RecastError as error:
        told.send_bytes(error.detail.encode())
