"""What a conversion is given and what it yields: plain values that cross a process boundary."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from app.domain.conversion import Stage
from app.domain.errors import Problem
from app.domain.recipe import CheckedRecipe
from app.domain.report import Certificate, ConversionReport, ProducedFile
from app.targets.specs import TargetOptions

ProgressCallback = Callable[[Stage, float], None]
"""Called with the stage that runs and the progress of the whole conversion in [0, 1]."""


@dataclass(frozen=True)
class StoredTemplate:
    """A template made by an earlier conversion: one local file (docs/templates.md) and what was proved of it."""

    key: str
    path: Path
    certificate: Certificate


@dataclass(frozen=True)
class UnsuitableTemplate:
    """An earlier conversion found that no template can serve this key; ``reason`` says why."""

    key: str
    reason: str


class TemplateSource(Protocol):
    """Where templates come from: the service's database and store, or a directory of the command line."""

    def find(self, key: str) -> StoredTemplate | UnsuitableTemplate | None:
        """What is known of that key. None: nothing, and this conversion alone may build it.

        Waits while another conversion builds the same template. Whoever got None keeps that right until its conversion
        ends; what it made is published with its outcome.
        """


@dataclass(frozen=True)
class ConversionJob:
    """One conversion to run. ``work_dir`` exists, is empty and belongs to this job; results are written there."""

    conversion_id: str
    checkpoint: Path
    checkpoint_sha256: str
    architecture: str
    options: TargetOptions
    work_dir: Path
    architecture_options: dict[str, Any] = field(default_factory=dict)
    checkpoint_filename: str | None = None
    plugins_dir: Path | None = None
    plugin: str | None = None
    """The plug-in that offers the architecture, which alone is imported; "": none; None: whichever does."""
    recipe: CheckedRecipe | None = None
    """What makes the architecture, where it is a recipe."""
    client_probes: Path | None = None
    """An npz file of inputs by name that the client sent."""
    threads: int = 1


@dataclass(frozen=True)
class BuiltTemplate:
    """A template that this conversion built and certified; its file lies in ``work_dir``."""

    key: str
    path: Path
    certificate: Certificate


@dataclass(frozen=True)
class ConversionOutcome:
    """Files lie in ``work_dir`` under their ``filename``. ``problem`` is set when verification failed."""

    report: ConversionReport
    files: tuple[ProducedFile, ...]
    problem: Problem | None = None
    template: BuiltTemplate | UnsuitableTemplate | None = None
    """What this conversion learned about its template key, to be published with it."""
    discarded_template: str | None = None
    """Key of a stored template that this conversion found unfit; it must not be used again."""
