"""Where in a model's code something happens."""

import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch

TORCH = f"{Path(torch.__file__).parent}/"
_OURS = tuple(f"{Path(__file__).parents[2]}/{part}/" for part in ("targets", "conversion"))
_ASKING = tuple(
    f"{TORCH}{name}"
    for name in (
        "__init__.py",
        "fx/experimental/sym_node.py",
        "fx/experimental/symbolic_shapes.py",
        "fx/experimental/recording.py",
        "_tensor.py",
        "overrides.py",
        "utils/",
        "_subclasses/fake_tensor.py",
    )
)
"""Through which every question about a symbolic size or a fake value goes, whoever asks."""


@dataclass(frozen=True, order=True)
class Place:
    """A line of Python code."""

    path: str
    line: int

    def __str__(self) -> str:
        return f"{Path(self.path).name}:{self.line}"


def asking() -> tuple[Place, str]:
    """The line of the model that runs, and the file from which something is asked: the model's, or one of torch's."""
    asker = ""
    for frame in _frames():
        file = frame.f_code.co_filename
        if file.startswith((*_OURS, "<")) or file == warnings.__file__:
            continue
        if not asker and not file.startswith(_ASKING):
            asker = file
        if not file.startswith(TORCH):
            return Place(file, frame.f_lineno), asker
    return Place(asker, 0), asker


def place_of(error: BaseException) -> Place | None:
    """The innermost line outside torch and this package that an error passed."""
    place, traceback = None, error.__traceback__
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if not file.startswith((TORCH, *_OURS)):
            place = Place(file, traceback.tb_lineno)
        traceback = traceback.tb_next
    return place


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back
