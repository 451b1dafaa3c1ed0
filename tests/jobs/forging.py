"""What a hostile conversion process says and leaves behind, by name; ``FORGERIES`` lists what must never succeed."""

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from app.conversion.job import ConversionJob, ConversionOutcome
from app.jobs.child import SupervisorLine

Outcome = dict[str, Any]


def forged(name: str, outcome: ConversionOutcome, job: ConversionJob, supervisor: SupervisorLine) -> Any:
    """The result of an honest conversion, changed by the forgery of that name."""
    told = TypeAdapter(ConversionOutcome).dump_python(outcome, mode="json")
    line = supervisor._line
    if name in SAID:
        line.sendall((SAID[name] if isinstance(SAID[name], bytes) else json.dumps(SAID[name]).encode()) + b"\n")
        time.sleep(60)
    if name in CHANGES or name in BOUNDED:
        (CHANGES | BOUNDED)[name](told, job.work_dir, job)
    return told


def overstated() -> dict[str, Any]:
    """A problem with all that is not a child's to say, and too much of the rest."""
    return _failed(
        title="<b>evil</b>",
        status=200,
        detail="nul \0 " + "A" * (1 << 20),
        stage="nonsense",
        extra={
            "retry_after": "1\r\nSet-Cookie: stolen=1",
            "content_range": "€",
            "location": "/x",
            "instance": "evil",
            "Bad-Name": 1,
            "missing_keys": ["k" * 10_000] * 1000,
            "deep": [[[["x"] * 100] * 100]],
        },
    )


def _failed(**changes: Any) -> dict[str, Any]:
    problem = {"code": "key_mismatch", "title": "t", "status": 422, "detail": "d", **changes}
    return {"kind": "failed", "problem": problem}


SAID: dict[str, Any] = {
    "garbage": b"this is no JSON",
    "done_garbage": {"kind": "done", "result": "garbage"},
    "done_null": {"kind": "done", "result": None},
    "deep": b'{"kind":"done","result":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "code_ours": _failed(code="worker_lost"),
    "code_internal": _failed(code="internal", status=500),
    "code_unknown": _failed(code="boo"),
    "status_huge": _failed(code="boo", status=10**30),
    "stage_unknown": {"kind": "progress", "stage": "nonsense", "progress": 0.5},
    "progress_infinite": b'{"kind":"progress","stage":"load","progress":1e999}',
    "template_nonsense": {"kind": "template_wanted", "key": "../../x"},
}


def _artifact(told: Outcome) -> Outcome:
    file: Outcome = told["files"][0]
    return file


def _name_artifact(told: Outcome, **changes: Any) -> None:
    """Tell the same lie in both places that name the artifact."""
    _artifact(told).update(changes)
    told["report"]["artifact"].update(changes)


def _link(make: Callable[[Path, Path], None]) -> Callable[[Outcome, Path, ConversionJob], None]:
    def change(told: Outcome, results: Path, job: ConversionJob) -> None:
        path = results / _artifact(told)["filename"]
        path.unlink()
        make(job.checkpoint, path)
        content = job.checkpoint.read_bytes()
        _name_artifact(told, sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))

    return change


def _other_template(told: Outcome, results: Path, _: ConversionJob) -> None:
    (results / "template").write_bytes(b"graph")
    told["template"] = {
        "key": "ab" * 32,
        "path": str(results / "template"),
        "certificate": {
            "conversion_id": "x",
            "certified_at": "now",
            "verdict": "pass",
            "probes": 5,
            "worst_ratio": 0.1,
        },
    }


CHANGES: dict[str, Callable[[Outcome, Path, ConversionJob], None]] = {
    "sha_of_another": lambda told, _, job: _name_artifact(told, sha256=job.checkpoint_sha256),
    "sha_path": lambda told, _, job: _name_artifact(told, sha256="../" * 20 + "tmp/written"),
    "bytes": lambda told, _, job: _name_artifact(told, bytes=10**9),
    "bytes_huge": lambda told, _, job: _name_artifact(told, bytes=10**40),
    "filename_up": lambda told, _, job: _name_artifact(told, filename="../../../objects/x"),
    "filename_html": lambda told, _, job: _name_artifact(told, filename="x.html"),
    "filename_nul": lambda told, _, job: _name_artifact(told, filename="a\0b"),
    "symlink": _link(lambda source, path: path.symlink_to(source)),
    "hardlink": _link(lambda source, path: os.link(source, path)),
    "directory": lambda told, results, job: _in_place(results / _artifact(told)["filename"], Path.mkdir),
    "fifo": lambda told, results, job: _in_place(results / _artifact(told)["filename"], os.mkfifo),
    "report_in_the_way": lambda _, results, job: _in_place(results / "report.json", Path.mkdir),
    "statement_in_the_way": lambda _, results, job: (results / "statement.json").mkdir(),
    "results_exchanged": lambda told, results, job: _exchange(results, job),
    "no_file": lambda told, results, job: (results / _artifact(told)["filename"]).unlink(),
    "two_artifacts": lambda told, _, job: told["files"].append(dict(_artifact(told))),
    "no_artifact": lambda told, _, job: told["files"].pop(0),
    "other_conversion": lambda told, _, job: told["report"].update(conversion_id="cnv_" + "0" * 32),
    "other_checkpoint": lambda told, _, job: told["report"].update(checkpoint_sha256="ab" * 32),
    "other_architecture": lambda told, _, job: told["report"].update(architecture="torchvision/resnet18"),
    "other_target": lambda told, _, job: told["report"].update(target="torchscript"),
    "other_template": _other_template,
    "discarded_template": lambda told, _, job: told.update(discarded_template="ab" * 32),
    "ruled_out_template": lambda told, _, job: told.update(template={"key": "ab" * 32, "reason": "no"}),
    "problem_of_ours": lambda told, _, job: told.update(problem=_failed(code="worker_lost")["problem"]),
    "memory_huge": lambda told, _, job: told["report"].update(peak_memory_bytes=10**30),
    "ratio_infinite": lambda told, _, job: told["report"]["parameters"].update(total=10**400),
}


def _findings(told: Outcome, _: Path, __: ConversionJob) -> None:
    finding = {"reason": "trace_warnings", "severity": "note", "detail": "B" * 50_000}
    told["report"]["verification"]["findings"] = [finding] * 300


BOUNDED: dict[str, Callable[[Outcome, Path, ConversionJob], None]] = {"findings_many": _findings}
"""What is taken as a report, of which a conversion tells a part."""


def _in_place(path: Path, make: Callable[[Path], None]) -> None:
    path.unlink()
    make(path)


def _exchange(results: Path, job: ConversionJob) -> None:
    """Another directory, made of what the process can read, in the place of its own."""
    for file in results.iterdir():
        file.unlink()
    results.rmdir()
    results.symlink_to(job.checkpoint.parent)


FORGERIES = (*SAID, *CHANGES)
