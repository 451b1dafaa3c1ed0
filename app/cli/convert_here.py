"""`recast convert` in this process, without any server."""

import hashlib
import shutil
import sys
import tempfile
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from app.cli.conversion_order import Order
from app.cli.failure import tell
from app.cli.present import exit_status, show_report
from app.cli.template_directory import TemplateDirectory, default_directory
from app.conversion.job import ConversionJob, ConversionOutcome, ProgressCallback
from app.delivery.bundle import BundledFile, make_bundle
from app.delivery.report_page import render
from app.domain.conversion import Stage
from app.domain.identifiers import conversion_id
from app.domain.report import ProducedFile

BLOCK = 1 << 20


def convert_here(order: Order, plugins_dir: Path | None, threads: int) -> int:
    """Run the conversion, write what was asked for, tell the verdict; gives the exit status."""
    from app.conversion.pipeline import convert

    warnings.simplefilter("ignore")  # what exporters warn of is in the report; libraries' own news are not the user's
    templates = TemplateDirectory(default_directory())
    with tempfile.TemporaryDirectory(prefix="recast-") as work, _progress() as progress:
        job = ConversionJob(
            conversion_id=conversion_id(),
            checkpoint=order.weights,
            checkpoint_sha256=_sha256(order.weights),
            architecture=order.architecture,
            options=order.options,
            work_dir=Path(work),
            architecture_options=order.architecture_options,
            checkpoint_filename=order.weights.name,
            plugins_dir=plugins_dir,
            client_probes=order.probes,
            threads=threads,
        )
        with redirect_stdout(sys.stderr):  # what a plug-in prints is not the command's output
            outcome = convert(job, progress, templates)
        if outcome.template is not None:
            templates.keep(outcome.template)
        if outcome.discarded_template is not None:
            templates.discard(outcome.discarded_template)
        _write_results(order, outcome, Path(work))
    show_report(outcome.report, order.output if _is_delivered(order, outcome) else None)
    if outcome.problem is not None:
        tell(outcome.problem)
    return exit_status(outcome.report.verification.verdict)


def _is_delivered(order: Order, outcome: ConversionOutcome) -> bool:
    return outcome.problem is None or order.unverified


def _write_results(order: Order, outcome: ConversionOutcome, work: Path) -> None:
    if order.report is not None:
        page = order.report.suffix.lower() in (".html", ".htm")
        order.report.write_text(render(outcome.report) if page else outcome.report.model_dump_json(indent=2))
    if not _is_delivered(order, outcome):
        return
    by_role = {file.role: file for file in outcome.files}
    shutil.copyfile(work / by_role["artifact"].filename, order.output)
    if "artifact_data" in by_role:
        # The model names its weights file, which therefore keeps its name.
        shutil.copyfile(
            work / by_role["artifact_data"].filename, order.output.with_name(by_role["artifact_data"].filename)
        )
    if order.bundle is not None:
        write_bundle(order.bundle, outcome, work)


def write_bundle(path: Path, outcome: ConversionOutcome, work: Path) -> None:
    """The same archive that the service delivers."""
    files = [_bundled(file, work) for file in outcome.files]
    bundle = make_bundle(outcome.report.conversion_id, files, render(outcome.report).encode("utf-8"))
    names = {file.sha256: work / file.filename for file in outcome.files}
    with path.open("wb") as archive:
        for piece in bundle.pieces:
            if isinstance(piece.content, bytes):
                archive.write(piece.content)
            else:
                with names[piece.content].open("rb") as member:
                    shutil.copyfileobj(member, archive, BLOCK)


def _bundled(file: ProducedFile, work: Path) -> BundledFile:
    crc32 = 0
    with (work / file.filename).open("rb") as content:
        while block := content.read(BLOCK):
            crc32 = zlib.crc32(block, crc32)
    return BundledFile(file.role, file.filename, file.sha256, file.bytes, crc32, file.media_type)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _progress() -> Iterator[ProgressCallback]:
    """A bar on a terminal, nothing elsewhere."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("starting", total=1.0)

        def tell_progress(stage: Stage, reached: float) -> None:
            bar.update(task, description=stage.value, completed=reached)

        yield tell_progress
