"""What is verified: the loaded module, the artifact on disk, and what the earlier stages said of both."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from app.architectures.calling import EagerModel
from app.domain.architecture import Signature
from app.domain.checkpoint import LoadReport
from app.domain.conversion import AccuracyBudget, IoDType, Measurement, TargetName
from app.domain.report import Certificate, ExportReport
from app.domain.runtime import RuntimeLimits
from app.targets.capturing.place import Place
from app.targets.claims import Claim
from app.targets.reader import Reader, reader_of


@dataclass(frozen=True, kw_only=True)
class Model(EagerModel):
    """The eager module and how it is probed.

    ``signature`` is the one exported with: a symbolic axis in it was asked to be dynamic.
    """

    target: TargetName
    seed: int
    threads: int = 1
    asked_axes: frozenset[str] = frozenset()
    """Axes that the client itself asked to be dynamic."""
    client_probes: Path | None = None
    coarseness: float = 1.0
    """Times the unit roundoff of the model's dtype with which the artifact was asked to compute."""
    io_dtype: IoDType | None = None
    """In which the artifact shall take and give what is float32 in the model; None: as the model does."""
    limits: RuntimeLimits | None = None
    """Of the runtime that the artifact was made for, where that is another one."""
    tolerance: AccuracyBudget | None = None
    """Of an artifact that approximates the model."""

    @property
    def reader(self) -> Reader:
        """The reading half of the target."""
        return reader_of(self.target)


@dataclass(frozen=True, kw_only=True)
class Subject(Model):
    """One artifact and everything it must agree with.

    ``declared`` is the architecture's own signature, when the options narrowed it; ``kept`` the lines of the model at
    which a trace kept one answer.
    """

    load: LoadReport
    uploaded: Mapping[str, Tensor]
    artifact: Path
    export: ExportReport
    claims: Mapping[str, Claim]
    """What the artifact's template says of each place."""
    measure: frozenset[Measurement] = frozenset()
    """Figures that no verdict rests on and that were asked for."""
    declared: Signature | None = None
    kept: tuple[Place, ...] = ()
    certificate: Certificate | None = None
    """Of the stored template that the artifact was filled from."""
