"""What a conversion process and its supervisor tell each other: one JSON object per line over a socket.

JSON and not pickle, because the supervisor must not run what a process says that has read a stranger's file.
"""

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from app.domain.base import Value
from app.domain.conversion import Stage
from app.domain.errors import Problem
from app.domain.report import Certificate
from app.domain.text import storable_json


class Progress(Value):
    """The stage that runs, and the progress of the whole in [0, 1]."""

    kind: Literal["progress"] = "progress"
    stage: Stage
    progress: float = Field(ge=0, le=1)


class TemplateWanted(Value):
    """The child asks for the template of a key; a TemplateAnswer follows, perhaps after a while."""

    kind: Literal["template_wanted"] = "template_wanted"
    key: str = Field(pattern="^[0-9a-f]{64}$")


Layers = Annotated[
    dict[Annotated[str, Field(max_length=100)], Annotated[str, Field(max_length=1_000)]], Field(max_length=32)
]


class Confinement(Value):
    """The child's first message: the layers of confinement.py in force, and those refused, each with a word on it."""

    kind: Literal["confinement"] = "confinement"
    in_force: Layers
    missing: Layers


class Order(Value):
    """What a child is to do, as the supervisor's first line to it: ``module:function``, and its arguments as JSON."""

    task: str
    arguments: Any


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


FromChild = Annotated[Progress | TemplateWanted | Confinement | Done | Failed, Field(discriminator="kind")]

from_child: TypeAdapter[FromChild] = TypeAdapter(FromChild)

LONGEST = 32 << 20
"""Bytes of the longest line: a report lists every tensor, and the api reads it again whenever it is asked for."""
MOST_VALUES = 2_000_000
"""Values of one line, by its commas: what it costs to make objects of it. A tensor has about twenty in a report."""
LONGEST_TEXT = 64 << 10
"""Characters of a text in a result."""
MOST_MESSAGES = 5_000
"""Lines of one process: some hundred are said of the longest conversion."""
ESCAPED_NUL = rb"\u0000"


MANY_DIGITS = re.compile(rb"[:,\[] ?-?\d{19}")
"""What a number beyond 64 bits looks like, and some texts too: then numbers are looked at one by one."""


def understood(line: bytes) -> FromChild:
    """The message that a line is. Raises ValueError, which pydantic's ValidationError is one of."""
    if line.count(b",") > MOST_VALUES:
        raise ValueError("more values than a message has")
    if MANY_DIGITS.search(line):
        json.loads(line, parse_int=_integer)
    if ESCAPED_NUL in line:
        line = json.dumps(storable_json(json.loads(line))).encode()
    message = from_child.validate_json(line)
    if isinstance(message, Done) and any(len(text) > LONGEST_TEXT for text in _texts(message.result)):
        raise ValueError("a longer text than a result has")
    return message


def _texts(result: Any) -> Iterator[str]:
    """Every text in a JSON value, the names of members too."""
    waiting = [result]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            yield from value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _integer(digits: str) -> int:
    """Neither PostgreSQL nor any client counts further than 64 bits do."""
    value = int(digits)
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{digits[:40]} has more than 64 bits")
    return value
