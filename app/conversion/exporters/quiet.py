"""Running a library's exporter so that what it says is collected and nothing of it reaches our output or later jobs."""

import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

_LOGGERS = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
_SHOWN = 300
_PATH = re.compile(r"(?:[A-Za-z]:)?(?:/[\w.+@-]+){2,}/?")

# Said of every export by every version of the exporters; they tell a client nothing about its model.
_ROUTINE = (
    "legacy TorchScript-based ONNX export",
    "is deprecated",
    "is not supported in Python 3.14",
    "Importing from",
    "treespec",
)


@contextmanager
def collected() -> Iterator[list[str]]:
    """Collect warnings and log records, first lines only and without paths; swallow printed text.

    Filters, handlers and levels are as before when the context ends.
    """
    said: list[str] = []
    handler = _Collector(said)
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
            said.extend(f"{warning.category.__name__}: {first_line(str(warning.message))}" for warning in caught)
            said[:] = [line for line in dict.fromkeys(said) if not any(routine in line for routine in _ROUTINE)]


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
