"""What is verified: the loaded module, the artifact on disk, and what the earlier stages said of both."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from app.conversion.verification.claims import InitializerClaim
from app.domain.architecture import Signature
from app.domain.checkpoint import LoadReport
from app.domain.conversion import TargetName
from app.domain.report import ExportReport


@dataclass(frozen=True)
class Subject:
    """One artifact and everything it must agree with.

    ``signature`` is the one exported with: a symbolic axis in it was asked to be dynamic. ``declared`` is the
    architecture's own, when the options narrowed it. ``origins`` is what a template claims of each initializer.
    """

    module: nn.Module
    signature: Signature
    load: LoadReport
    uploaded: Mapping[str, Tensor]
    target: TargetName
    artifact: Path
    export: ExportReport
    seed: int
    threads: int = 1
    origins: Mapping[str, InitializerClaim] | None = None
    client_probes: Path | None = None
    declared: Signature | None = None
