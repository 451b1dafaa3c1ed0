"""What runs inside a conversion process. Only here, and only inside functions, the job side meets torch.

A task is a function ``task(arguments, supervisor) -> result``; arguments and result are JSON values.
"""

import faulthandler
import importlib
import logging
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic_core import PydanticSerializationError

from app.conversion.job import (
    ConversionJob,
    ConversionOutcome,
    StoredTemplate,
    TemplateSource,
    UnsuitableTemplate,
)
from app.domain.conversion import Stage
from app.domain.errors import (
    ConversionError,
    InsufficientStorage,
    OutOfMemory,
    Problem,
    RecastError,
    disk_ran_out,
    memory_ran_out,
)
from app.domain.text import message_of, storable_json
from app.jobs.confinement import Confined, Requirement
from app.jobs.messages import LONGEST_TEXT, Confinement, Done, Failed, Order, Progress, TemplateAnswer, TemplateWanted
from app.targets.specs import default_options, installed

_log = logging.getLogger(__name__)


class SupervisorLine:
    """The child's end of the line to its supervisor."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._answers = line.makefile("rb")
        self._stage: Stage | None = None

    def tell(self, message: BaseModel) -> None:
        try:
            told = message.model_dump_json()
        except PydanticSerializationError:  # a text of the file or of a plug-in that has no UTF-8
            told = type(message).model_validate(storable_json(message.model_dump())).model_dump_json()
        self._line.sendall(told.encode() + b"\n")

    def order(self) -> Order:
        return Order.model_validate_json(self._answers.readline())

    def progress(self, stage: Stage, progress: float) -> None:
        if stage is not self._stage:
            self._stage = stage
            _log.info("%s %s", datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), stage.value)
        self.tell(Progress(stage=stage, progress=progress))

    def ask_for_template(self, key: str) -> TemplateAnswer:
        self.tell(TemplateWanted(key=key))
        return TemplateAnswer.model_validate_json(self._answers.readline())


Task = Callable[[Any, SupervisorLine], Any]


@dataclass(frozen=True)
class ServiceTemplates(TemplateSource):
    """Templates of the service's database and store, asked for through the supervisor."""

    supervisor: SupervisorLine

    def find(self, key: str) -> StoredTemplate | UnsuitableTemplate | None:
        answer = self.supervisor.ask_for_template(key)
        if answer.state == "stored":
            assert answer.path
            assert answer.certificate
            return StoredTemplate(key, Path(answer.path), answer.certificate)
        if answer.state == "unsuitable":
            return UnsuitableTemplate(key, answer.reason or "")
        return None


def main(line: socket.socket, confined: Confined, requirement: Requirement) -> int:
    """Do what the supervisor orders and tell it how that ended; gives the exit status.

    Nothing is done where the confinement does not suffice, which the supervisor is told of in any case.
    """
    faulthandler.enable(file=sys.__stderr__ or 2)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.__stderr__, force=True)
    logging.getLogger("app").setLevel(logging.INFO)
    supervisor = SupervisorLine(line)
    supervisor.tell(Confinement(in_force=confined.in_force, missing=confined.missing))
    order = supervisor.order()  # in any case: who hangs up on what was not read takes back what was said
    if not confined.suffices(requirement):
        return 0
    try:
        result = _find(order.task)(order.arguments, supervisor)
    except BaseException as error:  # noqa: BLE001 - whatever ended the task, this process ends with it
        if not isinstance(error, RecastError):
            traceback.print_exc()  # before the last word, after which this process is ended
        if isinstance(error, SystemExit | KeyboardInterrupt | Exception):
            supervisor.tell(Failed(problem=problem_of(error)))
        return 1
    supervisor.tell(Done(result=storable_json(result, LONGEST_TEXT)))
    return 0


def run_nothing(_: Any, __: SupervisorLine) -> Any:
    """Task: none. That there was a process for it is what is asked."""


def run_conversion(arguments: Any, supervisor: SupervisorLine) -> Any:
    """Task: one conversion, of a ConversionJob to a ConversionOutcome."""
    from app.conversion.pipeline import convert

    job = TypeAdapter(ConversionJob).validate_python(arguments)
    outcome = convert(job, supervisor.progress, ServiceTemplates(supervisor))
    return TypeAdapter(ConversionOutcome).dump_python(outcome, mode="json")


def run_inspection(arguments: Any, _: SupervisorLine) -> Any:
    """Task: what is inside a checkpoint file, of a path to a CheckpointInspection."""
    from app.conversion.checkpoint import open_checkpoint

    return open_checkpoint(Path(arguments)).inspection.model_dump(mode="json")


def run_catalog(arguments: Any, _: SupervisorLine) -> Any:
    """Task: the descriptions of the architectures of one plug-in, or of all libraries, and nothing else imported.

    Of {"plugins_dir": directory or None, "plugin": name or None}.
    """
    from app.architectures.registry import load_registry

    if arguments["plugin"] is None:
        descriptions = load_registry().library_catalog()
    else:
        descriptions = load_registry(_directory(arguments), arguments["plugin"]).plugin_catalog()
    return [installed(description).model_dump(mode="json") for description in descriptions]


def run_layouts(arguments: Any, _: SupervisorLine) -> Any:
    """Task: the layouts of the architectures of one plug-in, as a document (domain/layout_file.py).

    Of {"plugins_dir", "plugin", "source", "version", "builds"}. What cannot be built is left out.
    """
    from app.architectures.layouts import layouts_of
    from app.architectures.registry import load_registry
    from app.domain.layout import Layout
    from app.domain.layout_file import dump

    registry = load_registry(_directory(arguments), arguments["plugin"])
    found: list[Layout] = []
    for entry in registry.plugin_catalog():
        with suppress(RecastError):
            found += layouts_of(registry, entry.name, builds=arguments["builds"])
    return dump(arguments["source"], arguments["version"], found)


def run_recipe(arguments: Any, _: SupervisorLine) -> Any:
    """Task: a recipe with its sizes, the description of what it makes, and the document of its layout.

    Of {"plugins_dir", "plugin", "recipe"}.
    """
    from app.architectures.layouts import layouts_of
    from app.architectures.registry import load_registry
    from app.domain.layout_file import dump
    from app.domain.recipe import RecipeRequest, recipe_of

    recipe = recipe_of(RecipeRequest.model_validate(arguments["recipe"]))
    directory, plugin = _directory(arguments), arguments["plugin"]
    checked = load_registry(directory, plugin).checked(recipe)
    registry = load_registry(directory, plugin, checked)
    return {
        "checked": checked.model_dump(mode="json"),
        "description": registry.describe(recipe.name).model_dump(mode="json"),
        "layout": dump("recipe", checked.digest, layouts_of(registry, recipe.name)),
    }


def _directory(arguments: Any) -> Path | None:
    return Path(arguments["plugins_dir"]) if arguments["plugins_dir"] else None


def run_rehearsal(arguments: Any, _: SupervisorLine) -> Any:
    """Task: a checkpoint of made-up weights, with which a template can be built before anybody sends real ones.

    Of {"architecture", "plugins_dir", "plugin", "file"} to the template key of each target with its default options.
    """
    from app.architectures.calibration import save_checkpoint
    from app.architectures.registry import load_registry
    from app.targets.request import requested_signature
    from app.targets.templating.key import template_key

    name = arguments["architecture"]
    registry = load_registry(_directory(arguments), arguments["plugin"])
    description = installed(registry.resolve(name, {}))
    save_checkpoint(registry, name, {}, Path(arguments["file"]))
    return {
        options.target: template_key(description, {}, options, requested_signature(description.signature, options))
        for options in default_options(description.targets)
    }


def problem_of(error: BaseException) -> Problem:
    """An error of a task as data. What was not foreseen is named by its type alone."""
    if isinstance(error, RecastError):
        return error.problem()
    if disk_ran_out(error):
        return InsufficientStorage("No space is left on the worker's disk.").problem()
    if memory_ran_out(error):
        return OutOfMemory(f"Memory ran out: {message_of(error, 500).splitlines()[0]}.").problem()
    # The message of a foreign exception may hold paths of this server; the log has it whole.
    return ConversionError(
        f"The conversion stopped with an unforeseen {type(error).__name__}.",
        hint="The worker's log has the details, under the conversion's id.",
    ).problem()


def _find(task: str) -> Task:
    module, _, function = task.partition(":")
    found: Task = getattr(importlib.import_module(module), function)
    return found
