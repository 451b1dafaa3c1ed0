"""What the conversion processes of these tests do, without torch: they speak, wait to be told, and make files."""

import sys
import time
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from app.conversion.job import ConversionJob
from app.domain.conversion import Stage
from app.jobs.child import SupervisorLine
from tests.jobs import tasks

SECRET = "rk_" + "s3cr3tS3cr3tS3cr3t"
BEHAVIOURS = ("net", "refuse", "speak", "chatter")


def convert(arguments: Any, supervisor: SupervisorLine) -> Any:
    job = TypeAdapter(ConversionJob).validate_python(arguments)
    behaviour = job.architecture.removeprefix("test/")
    if behaviour == "speak":
        supervisor.progress(Stage.inspect, 0.0)
        sys.stdout.write(f"first, with {SECRET} of {__file__}\n")
        _until_told(job, job.checkpoint_filename or "")
        sys.stderr.write("\x1b[31msecond\x1b[0m\n")
    if behaviour == "chatter":
        for number in range(200_000):
            sys.stdout.write(f"line {number} of very many\n")
    return tasks.convert(arguments, supervisor)


def _until_told(job: ConversionJob, word: str) -> None:
    assert job.plugins_dir
    while not (Path(job.plugins_dir) / word).exists():
        time.sleep(0.05)


def inspect(path: Any, _: SupervisorLine) -> Any:
    return {"format": "safetensors", "bytes": Path(path).stat().st_size}


def catalog(arguments: Any, _: SupervisorLine) -> Any:
    if arguments["plugin"] is None:
        return [tasks._entry(f"test/{behaviour}") for behaviour in BEHAVIOURS]
    return []
