"""Running a library's exporter so that what it says is collected and nothing of it reaches our output or later jobs."""

import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field

from torch.jit._trace import TracerWarning

from app.domain.scrubbing import without_paths
from app.targets.capturing.place import TORCH, Place, asking

_LOGGERS = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
_SHOWN = 300

# Addressed to the people who write exporters, not to the client whose model is exported.
_FOR_DEVELOPERS = (FutureWarning, DeprecationWarning, PendingDeprecationWarning)

# Two inputs that share an axis of one name: torch.onnx says that it names the axis once.
_SHARED_AXIS = re.compile(r"axis name: (\w+) will not be used, since it shares the same shape constraints .*: \1\.")


@dataclass
class Said:
    """What an exporter said: first lines, without paths."""

    lines: list[str] = field(default_factory=list)
    kept: list[Place] = field(default_factory=list)
    """Lines of the model's own code (torch's argument checks are none) at which the tracer warned that Python took a
    value or a size."""

    def keep(self, message: Warning | str, category: type[Warning], *_: object) -> None:
        """In the place of ``warnings.showwarning``: of a tracer's warning the stack tells more than file and line."""
        text = str(message)
        if issubclass(category, TracerWarning):
            place, asker = asking()
            if not asker.startswith(TORCH):
                self.kept.append(place)
            elif "Converting a tensor to a Python" in text:
                return  # torch's layers check their arguments this way
        if not issubclass(category, _FOR_DEVELOPERS) and not _SHARED_AXIS.search(text):
            self.lines.append(f"{category.__name__}: {first_line(text)}")


@contextmanager
def collected() -> Iterator[Said]:
    """Collect warnings and log records, first lines only and without paths; swallow printed text.

    Filters, handlers and levels are as before when the context ends.
    """
    said = Said()
    handler = _Collector(said.lines)
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    propagation = [logger.propagate for logger in loggers]
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("always")
        warnings.showwarning = said.keep  # type: ignore[assignment]
        for logger in loggers:
            logger.addHandler(handler)
            logger.propagate = False
        try:
            yield said
        finally:
            for logger, propagate in zip(loggers, propagation, strict=True):
                logger.removeHandler(handler)
                logger.propagate = propagate
            said.lines[:] = dict.fromkeys(said.lines)


def first_line(text: str) -> str:
    """The first line with words in it, without file paths."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return without_paths(lines[0])[:_SHOWN] if lines else ""


def first_lines(text: str, count: int = 3) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return without_paths("\n".join(lines[:count]))[: _SHOWN * count]


class _Collector(logging.Handler):
    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.said = said

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(first_line(record.getMessage()))
