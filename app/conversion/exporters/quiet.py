"""Running a library's exporter so that what it says is collected and nothing of it reaches our output or later jobs."""

import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.jit._trace import TracerWarning

_LOGGERS = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
_SHOWN = 300
_PATH = re.compile(r"(?:[A-Za-z]:)?(?:/[\w.+@-]+){2,}/?")

# Addressed to the people who write exporters, not to the client whose model is exported.
_FOR_DEVELOPERS = (FutureWarning, DeprecationWarning, PendingDeprecationWarning)

_TORCH = Path(torch.__file__).parent

# Two inputs that share an axis of one name: torch.onnx says that it names the axis once.
_SHARED_AXIS = re.compile(r"axis name: (\w+) will not be used, since it shares the same shape constraints .*: \1\.")


@dataclass
class Said:
    """What an exporter said: first lines, without paths."""

    lines: list[str] = field(default_factory=list)
    branch_frozen: bool = False
    """The tracer warned that the model's own code (not torch's argument checks) turned a tensor into a Python value."""


@contextmanager
def collected() -> Iterator[Said]:
    """Collect warnings and log records, first lines only and without paths; swallow printed text.

    Filters, handlers and levels are as before when the context ends.
    """
    said = Said()
    handler = _Collector(said.lines)
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    propagation = [logger.propagate for logger in loggers]
    with warnings.catch_warnings(record=True) as caught, redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("always")
        for logger in loggers:
            logger.addHandler(handler)
            logger.propagate = False
        try:
            yield said
        finally:
            for logger, propagate in zip(loggers, propagation, strict=True):
                logger.removeHandler(handler)
                logger.propagate = propagate
            for warning in caught:
                _keep(warning, said)
            said.lines[:] = dict.fromkeys(said.lines)


def _keep(warning: warnings.WarningMessage, said: Said) -> None:
    text = str(warning.message)
    if issubclass(warning.category, TracerWarning) and "Converting a tensor to a Python" in text:
        if _TORCH in Path(warning.filename).parents:
            return  # torch's layers check their arguments this way; sizes that this fixes fail the dims certificate
        said.branch_frozen = True
    if not issubclass(warning.category, _FOR_DEVELOPERS) and not _SHARED_AXIS.search(text):
        said.lines.append(f"{warning.category.__name__}: {first_line(text)}")


def first_line(text: str) -> str:
    """The first line with words in it, without file paths."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return without_paths(lines[0])[:_SHOWN] if lines else ""


def first_lines(text: str, count: int = 3) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return without_paths("\n".join(lines[:count]))[: _SHOWN * count]


def without_paths(text: str) -> str:
    """``text`` with absolute paths cut to their last part."""
    return _PATH.sub(lambda match: match.group().rstrip("/").rpartition("/")[2], text)


class _Collector(logging.Handler):
    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.said = said

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(first_line(record.getMessage()))
