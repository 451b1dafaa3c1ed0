"""What can be said of a target without torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

from app.domain.conversion import CommonOptions, TargetName
from app.domain.report import ConversionReport
from app.domain.versions import PACKAGE


@dataclass(frozen=True)
class Serving:
    """What servers of models know of a format; None: nothing."""

    triton_backend: str | None = None
    unnamed_tensors: bool = False
    """Its files have no names for inputs and outputs: servers know them by their place."""
    mlflow_flavour: str | None = None


@dataclass(frozen=True)
class TargetSpec:
    """One target. ``title`` is what people call its format, ``suffix`` ends the names of its files."""

    name: TargetName
    title: str
    options: type[CommonOptions]
    """A class with the member ``target`` that admits ``name`` only."""
    suffix: str
    usage: Callable[[ConversionReport], Mapping[str, str]]
    """Language to a program that loads the artifact of this report and runs it once."""
    media_type: str = "application/octet-stream"
    serving: Serving = Serving()
    graph_is_shown: bool = False
    """Its artifact is an ONNX file: the api shows its graph and compares its tensors (delivery/onnx_file.py)."""
    requires: str | None = None
    """The distribution, and the package in it, that the target's own runtime needs; an extra of that name installs it.
    """

    @property
    def installing(self) -> str | None:
        """The command that adds the target to an installation that lacks it; None where nothing is lacking."""
        if self.requires is None or _is_installed(self.requires):
            return None
        return f'pip install "{PACKAGE}[{self.requires}]"'


@cache
def _is_installed(package: str) -> bool:
    return find_spec(package) is not None
