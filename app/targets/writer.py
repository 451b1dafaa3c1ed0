"""The writing half of a target: makes an artifact of a loaded module, always by filling a template."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from torch import Tensor, nn

from app.domain.conversion import CommonOptions, TargetName
from app.domain.report import ExportReport, Quantization
from app.targets.capturing.flat_module import FlatModule
from app.targets.capturing.place import Place
from app.targets.capturing.side import Side
from app.targets.claims import Claim
from app.targets.request import ExportRequest
from app.targets.specs import refuse_unless_installed
from app.targets.templating.filling import WrittenFile


class Captured(Protocol):
    """What an exporter gave."""

    @property
    def kept(self) -> Sequence[Place]:
        """Lines of the model at which a trace kept the answer that its sample gave."""


class Template(Protocol):
    """A graph without weights."""

    @property
    def against_reuse(self) -> str | None:
        """Why no other weights may fill it, in words."""

    @property
    def of_weights(self) -> str | None:
        """Why it serves only the weights that it was made with, in words; what is made with others may serve all."""


CapturedT = TypeVar("CapturedT", bound=Captured)
TemplateT = TypeVar("TemplateT", bound=Template)


class Writer(Protocol[CapturedT, TemplateT]):
    """Makes artifacts. ``options`` of a request are those of the target's spec."""

    @property
    def joined(self) -> Collection[str]:
        """Exporters that take one way through the model's code, and whose captures of several can be joined."""

    def warm(self) -> None:
        """What the first conversion of every process would do, done once in the process that children are forked from.

        Starts no threads.
        """

    def exporters(self, options: CommonOptions) -> Sequence[str]:
        """Names of the exporters to try, in order.

        Of one that is named twice, the first turn takes only what no other could make better; else that is put aside
        until the second.
        """

    def relaxed(self, request: ExportRequest) -> tuple[str, ExportRequest] | None:
        """What to ask each exporter for where its file does not run, and what that is called; None: nothing else."""

    def capture(self, request: ExportRequest, exporter: str, sides: Sequence[Side] = ()) -> CapturedT:
        """The graph, unoptimised. Raises ExportFailed and kin.

        With ``sides``, which only exporters in ``joined`` are given: a graph of several captures, that takes the first
        of the sides whose tests hold. The last one has none.
        """

    def constants(self, captured: CapturedT, module: nn.Module) -> Mapping[str, Tensor]:
        """The float tensors that the capture holds beside the module's state dict, by what they are called in it."""

    def build_template(self, captured: CapturedT, request: ExportRequest, path: Path) -> TemplateT:
        """Make a weight-free template. ``captured`` is consumed. Raises ExportFailed."""

    def load_template(self, path: Path) -> TemplateT:
        """Read a template file."""

    def for_request(self, template: TemplateT, request: ExportRequest) -> TemplateT:
        """The template of artifacts that say the request's facts of themselves, where readers of the format look, and
        that point into its checkpoint, where it has one."""

    def fill(
        self, template: TemplateT, tensors: Mapping[str, Tensor], request: ExportRequest, path: Path
    ) -> WrittenFile:
        """Write the artifact that carries ``tensors``. Raises TemplateMismatch."""

    def claims(self, template: TemplateT) -> Mapping[str, Claim]:
        """What the template says of each of the artifact's tensors."""

    def is_filled(self, template: TemplateT, written: WrittenFile) -> bool:
        """Whether the bytes on disk are the template's graph with its slots filled, and nothing else."""

    def report(self, template: TemplateT, request: ExportRequest) -> ExportReport: ...

    def program(self, flat: FlatModule, examples: tuple[Tensor, ...], exporter: str) -> Callable[..., Sequence[Tensor]]:
        """What this exporter captures, before it is translated; at the sizes of ``examples``."""


class Approximating(Protocol[TemplateT]):
    """What the writer of a target can do beside, of which some options ask for an approximation (``tolerance``)."""

    def approximations(
        self, template: TemplateT, tensors: Mapping[str, Tensor], request: ExportRequest, directory: Path
    ) -> Iterator[tuple[TemplateT, Quantization]]:
        """Approximations of the exact graph, nearer to it each time, until none is left. Files lie in ``directory``.

        Raises ExportFailed and kin where the graph holds nothing that can be approximated.
        """


def writer_of(target: TargetName) -> Writer[Any, Any]:
    """The writing half of that target. Raises TargetNotInstalled."""
    refuse_unless_installed(target)
    return cast(Writer[Any, Any], import_module(f"app.targets.{target}.writing.writer").WRITER)
