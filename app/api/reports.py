"""Reading reports, which conversion processes wrote: a large one never becomes objects of the api's own process."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from app.api.service import Service
from app.database.tables import ConversionFile
from app.delivery import report_process
from app.delivery.report_figures import Figures
from app.delivery.report_page import report_page
from app.domain.errors import NotReady, Unavailable
from app.domain.report import ConversionReport

SMALL = 1 << 20
"""Bytes of a report that is read here: as objects it takes up to 30 MB. One of resnet50 has 0.15 MB."""
KEPT = 256 << 10
"""Bytes of a report whose page is kept, which takes up to five times as many."""
SECONDS = 60.0
"""In which a large one must be read."""
_TOO_LARGE = "This report is too large to be shown. Read it as JSON: `Accept: application/json`."


async def report_of(service: Service, file: ConversionFile) -> ConversionReport | None:
    """The report, which the store has; None for one that is too large to be read here."""
    if file.bytes > SMALL:
        return None
    document = await _document(service, file)
    return await asyncio.to_thread(ConversionReport.kept, document)


async def page_of(service: Service, file: ConversionFile, links: Mapping[str, str], *, hosted: bool = False) -> bytes:
    """The report's page. Raises Unavailable, and NotReady where even a process of its own cannot read it."""
    await refuse_lost(service, file)
    if file.bytes > SMALL:
        return await _apart(service, file, "page", json.dumps({"links": links, "hosted": hosted}))
    # Rendering takes tenths of a second for large nets, so it is done beside the event loop.
    make = _kept if file.bytes <= KEPT else _page
    return await asyncio.to_thread(make, await _document(service, file), tuple(links.items()), hosted)


async def figures_of(service: Service, file: ConversionFile) -> Figures:
    """Raises as ``page_of``."""
    await refuse_lost(service, file)
    report = await report_of(service, file)
    if report is not None:
        return Figures.of(report)
    return Figures.model_validate_json(await _apart(service, file, "figures"))


def _page(document: bytes, links: tuple[tuple[str, str], ...], hosted: bool) -> bytes:
    report = ConversionReport.kept(document)
    return report_page(report, links=dict(links), hosted=hosted).encode()


_kept = lru_cache(maxsize=32)(_page)


async def refuse_lost(service: Service, file: ConversionFile) -> None:
    """Raises Unavailable while that can still be said: once a download has begun, it could only break off."""
    if await service.store.size(file.sha256) is None:
        raise Unavailable(f"The store has lost {file.filename}.", hint="Convert again with force=true.")


async def _document(service: Service, file: ConversionFile) -> bytes:
    return b"".join([chunk async for chunk in service.store.stream(file.sha256)])


async def _apart(service: Service, file: ConversionFile, what: str, asked: str = "{}") -> bytes:
    """What report_process.py makes of it, one report at a time: each takes a processor and much memory for seconds."""
    async with service.large_reports:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", report_process.__name__, what, asked),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd="/",
            env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": os.defpath},
        )
        assert process.stdin
        assert process.stdout
        try:
            async with asyncio.timeout(SECONDS):
                made, _ = await asyncio.gather(process.stdout.read(), _fed(service, file, process.stdin))
                status: int | None = await process.wait()
        except TimeoutError:
            made, status = b"", None
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if status != 0:
        raise NotReady(_TOO_LARGE, hint="The bundle and the artifact are not larger for it, and can be had.")
    return made


async def _fed(service: Service, file: ConversionFile, to: asyncio.StreamWriter) -> None:
    """Hand it over as it is read, and hold none of it."""
    with suppress(BrokenPipeError, ConnectionResetError):  # it has given up, as its status says
        async for chunk in service.store.stream(file.sha256):
            to.write(bytes(chunk))
            await to.drain()
    to.close()
