"""What a conversion is given and what it yields: plain values that cross a process boundary."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.domain.conversion import OnnxOptions, Stage, TorchScriptOptions
from app.domain.errors import Problem
from app.domain.report import Certificate, ConversionReport, ProducedFile

ProgressCallback = Callable[[Stage, float], None]
"""Called with the stage that runs and the progress of the whole conversion in [0, 1]."""


@dataclass(frozen=True)
class StoredTemplate:
    """A template made by an earlier conversion: one local file (docs/templates.md) and what was proved of it."""

    key: str
    path: Path
    certificate: Certificate


@dataclass(frozen=True)
class ConversionJob:
    """One conversion to run. ``work_dir`` exists, is empty and belongs to this job; results are written there."""

    conversion_id: str
    checkpoint: Path
    checkpoint_sha256: str
    architecture: str
    options: OnnxOptions | TorchScriptOptions
    work_dir: Path
    architecture_options: dict[str, Any] = field(default_factory=dict)
    checkpoint_filename: str | None = None
    plugins_dir: Path | None = None
    template: StoredTemplate | None = None
    template_key: str | None = None
    """Key under which a template built by this job may be stored; None: build none."""
    client_probes: Path | None = None
    """An npz file of inputs by name that the client sent."""
    threads: int = 1


@dataclass(frozen=True)
class BuiltTemplate:
    key: str
    path: Path
    certificate: Certificate


@dataclass(frozen=True)
class ConversionOutcome:
    """Files lie in ``work_dir`` under their ``filename``. ``problem`` is set when verification failed."""

    report: ConversionReport
    files: tuple[ProducedFile, ...]
    problem: Problem | None = None
    template: BuiltTemplate | None = None
    discarded_template: str | None = None
    """Key of the template that this job found unfit."""
