"""What a conversion process and its supervisor tell each other: one JSON object per line over a socket.

JSON and not pickle, because the supervisor must not run what a process says that has read a stranger's file.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from app.domain.base import Value
from app.domain.conversion import Stage
from app.domain.errors import Problem
from app.domain.report import Certificate


class Progress(Value):
    """The stage that runs, and the progress of the whole in [0, 1]."""

    kind: Literal["progress"] = "progress"
    stage: Stage
    progress: float = Field(ge=0, le=1)


class TemplateWanted(Value):
    """The child asks for the template of a key; a TemplateAnswer follows, perhaps after a while."""

    kind: Literal["template_wanted"] = "template_wanted"
    key: str = Field(pattern="^[0-9a-f]{64}$")


class Unconfined(Value):
    """Measures of confinement.py that this platform refused, each with its reason."""

    kind: Literal["unconfined"] = "unconfined"
    measures: tuple[str, ...]


class Done(Value):
    """The task's result, as JSON. Nothing follows."""

    kind: Literal["done"] = "done"
    result: Any


class Failed(Value):
    """The task ended with a designed error. Nothing follows."""

    kind: Literal["failed"] = "failed"
    problem: Problem


class TemplateAnswer(Value):
    """What is known of a template: a file and its certificate, why none can serve, or that the child may build it."""

    state: Literal["stored", "unsuitable", "build"]
    path: str | None = None
    certificate: Certificate | None = None
    reason: str | None = None


FromChild = Annotated[Progress | TemplateWanted | Unconfined | Done | Failed, Field(discriminator="kind")]

from_child: TypeAdapter[FromChild] = TypeAdapter(FromChild)

LONGEST = 256 << 20
"""Bytes of the longest line: a report lists every tensor."""
