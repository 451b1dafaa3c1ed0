"""Tasks for child processes of tests: what well- and ill-behaved conversions do, without torch."""

import errno
import hashlib
import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from app.conversion.job import BuiltTemplate, ConversionJob, ConversionOutcome, StoredTemplate
from app.domain.architecture import ArchitectureDescription, InputSpec, Signature
from app.domain.conversion import Stage
from app.domain.errors import BuildFailed, CorruptCheckpoint, KeyMismatch, ParityFailed
from app.domain.produced_files import artifact_stem
from app.domain.report import Certificate, ProducedFile, Verdict
from app.jobs.child import ServiceTemplates, SupervisorLine
from app.jobs.messages import Done
from app.targets.specs import SPECS
from tests.delivery import reports
from tests.jobs.forging import forged, overstated


def echo(arguments: Any, _: SupervisorLine) -> Any:
    return arguments


def echo_json(arguments: Any, _: SupervisorLine) -> Any:
    return json.loads(arguments)


def chatter(_: Any, supervisor: SupervisorLine) -> Any:
    for _ in range(6_000):
        supervisor.progress(Stage.load, 0.25)


def linger(_: Any, __: SupervisorLine) -> Any:
    """A result from a process that would not end by itself."""
    threading.Thread(target=time.sleep, args=(1000,)).start()
    return os.getpid()


def report_progress(_: Any, supervisor: SupervisorLine) -> Any:
    supervisor.progress(Stage.load, 0.25)
    supervisor.progress(Stage.export, 0.5)
    return os.getpid()


def refuse(_: Any, __: SupervisorLine) -> Any:
    raise KeyMismatch("Three keys are missing.", missing_keys=["a", "b", "c"])


def stumble(_: Any, __: SupervisorLine) -> Any:
    return {}["absent"]


def die(arguments: Any, _: SupervisorLine) -> Any:
    os.kill(os.getpid(), getattr(signal, arguments))


def leave(_: Any, __: SupervisorLine) -> Any:
    sys.exit(3)


def sleep(arguments: Any, supervisor: SupervisorLine) -> Any:
    """Start another process, and sleep in both for ever."""
    if os.fork() == 0:
        time.sleep(1000)
    supervisor.progress(Stage.export, 0.5)
    time.sleep(1000)


def eat_memory(arguments: Any, _: SupervisorLine) -> Any:
    return len(bytearray(arguments))


def reach_network(arguments: Any, _: SupervisorLine) -> Any:
    with socket.create_connection(("127.0.0.1", arguments), timeout=5):
        return "connected"


def read_environment(_: Any, __: SupervisorLine) -> Any:
    return sorted(name for name in os.environ if name.startswith("RECAST_"))


def write_large_file(arguments: Any, _: SupervisorLine) -> Any:
    Path(arguments).write_bytes(bytes(2 << 20))


def say_nonsense(_: Any, supervisor: SupervisorLine) -> Any:
    supervisor._line.sendall(b"\x00\xff not json\n")
    time.sleep(1000)


def _overstate(supervisor: SupervisorLine) -> None:
    supervisor._line.sendall(json.dumps(overstated()).encode() + b"\n")
    time.sleep(60)


def _flood(supervisor: SupervisorLine) -> None:
    for number in range(4_000):
        supervisor.progress(list(Stage)[number % 4], 0.5)


TALES = {"overstate": _overstate, "flood": _flood}


def convert(arguments: Any, supervisor: SupervisorLine) -> Any:
    """A conversion whose behaviour is its architecture's name: how long it takes, whether it asks for a template."""
    job = TypeAdapter(ConversionJob).validate_python(arguments)
    behaviour, _, detail = job.architecture.removeprefix("test/").partition(":")
    supervisor.progress(Stage.export, 0.3)
    if behaviour == "refuse":
        time.sleep(0.3)
        supervisor.progress(Stage.verify, 0.6)
        raise ParityFailed("It computes something else.")
    if behaviour in TALES:
        TALES[behaviour](supervisor)
    if behaviour == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour in MISDEEDS:
        MISDEEDS[behaviour](job)
    if behaviour == "sleep":
        (job.work_dir / f"sleeps-{job.conversion_id}").touch()
        time.sleep(float(detail))
    template = None
    if behaviour == "template_late":
        (job.work_dir / f"sleeps-{job.conversion_id}").touch()
        time.sleep(2)
    if behaviour in ("template", "template_late"):
        template = _template(job, detail, supervisor)
    name = artifact_stem(job.architecture) + SPECS[job.options.target].suffix
    artifact = _file(job, "artifact", name, job.checkpoint.read_bytes() * 2)
    report = reports.report(
        conversion_id=job.conversion_id,
        checkpoint_sha256=job.checkpoint_sha256,
        checkpoint_filename=job.checkpoint_filename,
        architecture=job.architecture,
        target=job.options.target,
        artifact=artifact,
        timings={"export": 0.1},
    )
    files = (artifact, _file(job, "report", "report.json", report.model_dump_json().encode()))
    outcome = ConversionOutcome(report, files, template=template)
    if behaviour == "forge":
        return forged(detail, outcome, job, supervisor)
    return TypeAdapter(ConversionOutcome).dump_python(outcome, mode="json")


def wish_the_worker_dead(job: ConversionJob) -> None:
    """service.py fulfils it: no process can reach its worker by itself."""
    (job.work_dir / "poison").touch()
    time.sleep(1000)


def find_no_room(_: ConversionJob) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def find_no_room_while_told(job: ConversionJob) -> None:
    if job.plugins_dir and (job.plugins_dir / "full").exists():
        find_no_room(job)


def stumble_unless_told(job: ConversionJob) -> None:
    (job.work_dir / f"sleeps-{job.conversion_id}").touch()
    assert job.plugins_dir
    while not (job.plugins_dir / "back").exists():
        if (job.plugins_dir / "gone").exists():
            raise FileNotFoundError(job.checkpoint)
        time.sleep(0.05)


MISDEEDS = {
    "stumble": stumble_unless_told,
    "kill_worker": wish_the_worker_dead,
    "find_no_room": find_no_room,
    "write": find_no_room_while_told,
}


def _template(job: ConversionJob, key: str, supervisor: SupervisorLine) -> BuiltTemplate | None:
    found = ServiceTemplates(supervisor).find(key)
    if isinstance(found, StoredTemplate):
        assert found.path.read_bytes() == b"graph"
        return None
    time.sleep(0.5)
    path = job.work_dir / "template"
    path.write_bytes(b"graph")
    certificate = Certificate(
        conversion_id=job.conversion_id, certified_at="now", verdict=Verdict.passed, probes=5, worst_ratio=0.1
    )
    return BuiltTemplate(key, path, certificate)


def _file(job: ConversionJob, role: str, name: str, content: bytes) -> ProducedFile:
    (job.work_dir / name).write_bytes(content)
    return ProducedFile.model_validate(
        {
            "role": role,
            "filename": name,
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
            "media_type": "application/octet-stream",
        }
    )


def inspect(path: Any, _: SupervisorLine) -> Any:
    content = Path(path).read_bytes()
    if content == b"bad":
        raise CorruptCheckpoint("It is bad.")
    if content == b"fatal":
        os.kill(os.getpid(), signal.SIGSEGV)
    return {"format": "safetensors", "bytes": len(content)}


def catalog(arguments: Any, supervisor: SupervisorLine) -> Any:
    """Of the libraries, or of a plug-in that does what its name says."""
    plugin = arguments["plugin"]
    if plugin is None:
        return [_entry("test/net")]
    if plugin == "hangs":
        time.sleep(3600)
    if plugin == "leaves":
        os._exit(3)
    if plugin == "crashes":
        os.kill(os.getpid(), signal.SIGSEGV)
    if plugin == "raises":
        raise BuildFailed("RuntimeError: no licence")
    if plugin == "forges":
        supervisor.tell(Done(result="garbage"))
        time.sleep(3600)
    claimed = {"claims": "torchvision/resnet18", "takes": "good/net"}
    return [_entry(claimed.get(plugin, f"{plugin}/net"), plugin="another")]


def _entry(name: str, plugin: str | None = None) -> Any:
    return ArchitectureDescription(
        name=name,
        family="test",
        library="test",
        library_version="1",
        signature=Signature(inputs=(InputSpec(name="x", shape=("batch", 3)),)),
        plugin=plugin,
    ).model_dump(mode="json")
