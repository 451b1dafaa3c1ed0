"""`recast api`: the process that answers requests."""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from app.api.server import server_config
from app.cli.processes import GRACE, SUPERVISOR, check_settings, listen, migrated_database, refuse_to_serve_nobody
from app.domain.versions import service_version
from app.logs import configure_logging
from app.main import create_app
from app.processes import close_to_others
from app.settings import Settings
from app.telemetry import configure_traces


def run_api(settings: Settings, fd: int | None) -> None:
    """Serve until SIGTERM or SIGINT. ``fd``: a listening socket that was inherited."""
    close_to_others()
    configure_logging(settings.log_format, settings.log_level)
    check_settings(settings)
    configure_traces("api", service_version())
    listener = socket.socket(fileno=fd) if fd is not None else listen(settings)
    with migrated_database(settings) as url:
        refuse_to_serve_nobody(settings, url)
        app = create_app(settings, url, os.environ.get(SUPERVISOR))
        _Server(server_config(app, settings, grace=GRACE)).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Ends with status 0 when it is told to stop; uvicorn itself would die of the signal a second time."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield
