"""The ways to make an artifact: fill a stored template, or capture a graph, make a template of it and fill that."""

import hashlib
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from app.architectures.module_state import state_kept
from app.architectures.registry import load_registry
from app.conversion.captured_values import refuse_values_of_weights
from app.conversion.job import ConversionJob, StoredTemplate
from app.conversion.loading import LoadedModule
from app.conversion.verification.subject import Model, Subject
from app.domain.architecture import ArchitectureDescription
from app.domain.checkpoint import CheckpointInspection
from app.domain.errors import LedgerFailed
from app.domain.report import Certificate, ExportReport
from app.targets.capturing.place import Place
from app.targets.capturing.side import Side
from app.targets.claims import Claim
from app.targets.onnx.writing.fill import WrittenFile
from app.targets.request import ExportRequest
from app.targets.specs import SPECS
from app.targets.templating.hashed_file import flush_early
from app.targets.writer import writer_of


@dataclass(frozen=True)
class Candidate:
    """An artifact on disk that has not been verified yet.

    ``claims`` is what the template says of each of its tensors, ``filled`` the template itself. ``template`` is the
    file of one built for this candidate, ``against_reuse`` why no other weights may fill it, ``of_weights`` why these
    need one of their own, ``certificate`` that of a stored template.
    """

    written: WrittenFile
    export: ExportReport
    claims: Mapping[str, Claim]
    filled: Any = None
    template: Path | None = None
    against_reuse: str | None = None
    of_weights: str | None = None
    template_seconds: float | None = None
    certificate: Certificate | None = None
    kept: tuple[Place, ...] = ()
    """Lines of the model at which a trace kept the answer that its sample gave."""


@dataclass(frozen=True)
class Workpiece:
    """A loaded module and all that is needed to make an artifact of it."""

    job: ConversionJob
    description: ArchitectureDescription
    inspection: CheckpointInspection
    loaded: LoadedModule
    request: ExportRequest

    def model(self) -> Model:
        """The model and its probes, whose seed is the hash of the conversion's id (verification.md, point 3)."""
        asked = self.job.options.dynamic_axes or {}
        seed = int.from_bytes(hashlib.sha256(self.job.conversion_id.encode()).digest()[:4], "little")
        return Model(
            module=self.loaded.module,
            signature=self.request.signature,
            target=self.job.options.target,
            seed=seed,
            threads=self.job.threads,
            client_probes=self.job.client_probes,
            coarseness=self.job.options.coarseness,
            io_dtype=self.job.options.io_dtype,
            limits=self.job.options.limits,
            tolerance=self.job.options.tolerance,
            asked_axes=frozenset(name for axes in asked.values() for name in axes.values()),
        )

    def fresh_module(self) -> nn.Module:
        """The architecture with its own initial values, which has seen nothing of the upload."""
        registry = load_registry(self.job.plugins_dir, self.job.plugin, self.job.recipe)
        return registry.build(self.job.architecture, self.job.architecture_options, initialised=True)

    def subject(self, candidate: Candidate) -> Subject:
        """What verification is told of an artifact of the model."""
        return Subject(
            **vars(self.model()),
            load=self.loaded.report,
            uploaded=self.loaded.uploaded,
            artifact=candidate.written.path,
            export=candidate.export,
            claims=candidate.claims,
            declared=self.description.signature,
            measure=frozenset(self.job.options.measure),
            kept=candidate.kept,
            certificate=candidate.certificate,
        )


def fill_stored(work: Workpiece, stored: StoredTemplate, directory: Path) -> Candidate:
    """Fill a certified template and prove, bit by bit, that the file is the certified graph and the weights.

    Raises TemplateMismatch, LedgerFailed.
    """
    template = writer_of(work.job.options.target).load_template(stored.path)
    return replace(fill(work, template, directory), certificate=stored.certificate)


def new_template(work: Workpiece, exporter: str, directory: Path, sides: Sequence[Side] = ()) -> Candidate:
    """Capture the graph, or one of several ``sides``, make a template of it, and fill it.

    Raises ExportFailed and kin, LedgerFailed.
    """
    writer = writer_of(work.job.options.target)
    capture = partial(writer.capture, exporter=exporter, sides=sides)
    started = time.perf_counter()
    with state_kept(work.loaded.module):  # what a run leaves there is of these weights and no part of the template
        captured = capture(work.request)
    constants = writer.constants(captured, work.loaded.module)
    path = work.job.work_dir / f"template-{directory.name}"
    template = writer.build_template(captured, work.request, path)
    if template.against_reuse is not None:
        refuse_values_of_weights(constants, writer, work.request, capture, work.fresh_module())
    seconds = time.perf_counter() - started
    candidate = fill(work, template, directory)
    return replace(
        candidate,
        template=path,
        against_reuse=template.against_reuse,
        of_weights=template.of_weights,
        template_seconds=seconds,
        kept=captured.kept,
    )


def fill(work: Workpiece, template: Any, directory: Path) -> Candidate:
    """Write the template's artifact and hold it to the template. Raises TemplateMismatch, LedgerFailed."""
    target = work.job.options.target
    writer, suffix = writer_of(target), SPECS[target].suffix
    telling = writer.for_request(template, work.request)
    tensors = {key: value for key, value in work.loaded.module.state_dict().items() if isinstance(value, Tensor)}
    written = writer.fill(telling, tensors, work.request, directory / f"model{suffix}")
    flush_early(written.path)
    if work.request.checkpoint is not None:  # where it will be used; a link is refused by onnx.checker
        shutil.copyfile(work.job.checkpoint, directory / work.request.checkpoint.name)
    if not writer.is_filled(telling, written):
        raise LedgerFailed("The file on disk is not the template's graph with the uploaded tensors.")
    return Candidate(written, writer.report(telling, work.request), writer.claims(telling), template)
