"""The field cases: small architectures after public bug reports, converted to both targets and judged independently.

Each conversion runs in a process of its own. Right: the artifact holds at sizes and inputs that Recast did not choose.
Told: there is none to trust, and a code and a sentence say why. WRONG: an artifact was passed that does not hold.
CRASH: it ended without a designed code. The table goes to docs/field-cases.md; the exit status is 1 for WRONG or CRASH.
"""

import argparse
import importlib.util
import json
import logging
import multiprocessing
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from recast_plugins import Declaration, declarations
from torch import nn

from app.architectures.calling import EagerModel, bind
from app.architectures.sample import sample_inputs
from app.conversion.job import ConversionJob
from app.conversion.pipeline import convert
from app.domain.conversion import Stage
from app.domain.errors import RecastError
from app.domain.identifiers import conversion_id
from app.targets.specs import OPTIONS
from scripts.artifact_judge import judge

ROOT = Path(__file__).parent.parent
CASES = ROOT / "tests" / "field" / "cases"
TARGETS = ("onnx", "torchscript")
SECONDS = 600
UNDESIGNED = frozenset({"conversion_failed", "internal"})
NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)

HEADING = """# Field cases

Small architectures written after public bug reports, converted to both targets. Each artifact is judged by
`scripts/artifact_judge.py`, which shares no code with the verification, at sizes, scales and inputs that Recast did not
choose. Made by `scripts/field-cases`.

{conversions} of {every} conversions were made: {totals}.

**right**: passed, and the judge agrees. **told**: refused or inconclusive, in words. **WRONG**: passed, and the judge
disagrees. **CRASH**: ended without a designed code.

| case | what was reported | target | outcome | result | exporter | told |
|---|---|---|---|---|---|---|"""


class NoTemplates:
    """Every conversion is a first one."""

    def find(self, key: str) -> None:
        del key


def unheard(stage: Stage, progress: float) -> None:
    """Nobody follows these conversions."""
    del stage, progress


@dataclass(frozen=True)
class Subject:
    """One row: a case with the options of one of its variants, to one target."""

    file: Path
    variant: int
    target: str

    @property
    def name(self) -> str:
        return self.file.stem + (f" ({self.variant})" if self.variant else "")


@dataclass(frozen=True)
class Row:
    case: str
    report: str
    target: str
    outcome: str
    result: str
    exporter: str
    told: str
    seconds: float


def subjects(folder: Path, wanted: list[str], targets: list[str]) -> Iterator[Subject]:
    for file in sorted(folder.glob("*.py")):
        if not wanted or any(file.stem.startswith(prefix) for prefix in wanted):
            for variant in range(len(getattr(loaded(file), "VARIANTS", [{}]))):
                yield from (Subject(file, variant, target) for target in targets)


def loaded(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"field_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def plan_of(case: ModuleType, declaration: Declaration) -> dict[str, list[int]]:
    """Sizes that a case's file names for judging: of its one architecture, or of each of several by name."""
    plans: dict[str, Any] = getattr(case, "JUDGE", {})
    plan: dict[str, list[int]] = plans.get(declaration.name, plans)
    return plan


def save_weights(case: ModuleType, declaration: Declaration, options: dict[str, Any], path: Path) -> None:
    """Weights that training could have left: no zeros and ones of an initialisation, statistics of real inputs."""
    torch.manual_seed(zlib.crc32(path.stem.encode()) & 0x7FFFFFFF)
    module = declaration.construct(options)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point() and parameter.dim() >= 1:
                spread = float(parameter.float().std()) if parameter.numel() > 1 else 0.0
                parameter.add_((torch.randn(parameter.shape) * 0.05 * (spread or 1.0)).to(parameter.dtype))
    if hasattr(case, "prepare"):
        case.prepare(module)
    if hasattr(case, "TRAIN_CALIBRATE") or any(
        isinstance(m, NORMS) or "spectral" in type(m).__name__.lower() for m in module.modules()
    ):
        _calibrate(module.train(), declaration, options)
    torch.save(module.eval().state_dict(), path)


def uploaded_file(case: ModuleType, weights: Path) -> Path:
    """The checkpoint to convert: what the case's ``checkpoint(state_dict)`` makes of the weights, else the weights."""
    if not hasattr(case, "checkpoint"):
        return weights
    uploaded = weights.with_name(f"uploaded-{weights.name}")
    torch.save(case.checkpoint(torch.load(weights, weights_only=True)), uploaded)
    return uploaded


def _calibrate(module: nn.Module, declaration: Declaration, options: dict[str, Any]) -> None:
    signature, generator = declaration.signature(options), torch.Generator().manual_seed(5)
    for _ in range(6):
        args, kwargs = bind(EagerModel(module, signature), sample_inputs(signature, {"batch": 4}, generator))
        with torch.no_grad():
            module(*args, **kwargs)


def run(subject: Subject, results: Path) -> None:
    """Convert and judge one subject; the row goes to ``results`` as JSON."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    case = loaded(subject.file)
    declaration = declarations(vars(case))[0]
    options = getattr(case, "VARIANTS", [{}])[subject.variant]
    with tempfile.TemporaryDirectory(prefix="field-") as directory:
        work = Path(directory)
        weights = work / f"{subject.file.stem}.pth"
        save_weights(case, declaration, options, weights)
        started = time.perf_counter()
        try:
            told = _converted(subject, case, declaration, options, weights)
        except Exception as error:  # noqa: BLE001 - what no one designed is what this script looks for
            told = _refused("internal", f"{type(error).__name__}: {error}")
    row = {"case": subject.name, "report": getattr(case, "CASE", {}).get("symptom", ""), "target": subject.target}
    results.write_text(json.dumps({**row, **told, "seconds": time.perf_counter() - started}))


def _converted(
    subject: Subject, case: ModuleType, declaration: Declaration, options: dict[str, Any], weights: Path
) -> dict[str, str]:
    work = weights.parent
    target_options = {"target": subject.target, **getattr(case, "OPTIONS", {})}
    (work / "job").mkdir()
    job = ConversionJob(
        conversion_id=conversion_id(),
        checkpoint=uploaded_file(case, weights),
        checkpoint_sha256="0" * 64,
        architecture=declaration.name,
        options=OPTIONS.validate_python(target_options),
        work_dir=work / "job",
        architecture_options=options,
        plugins_dir=subject.file.parent,
    )
    try:
        outcome = convert(job, unheard, NoTemplates())
    except RecastError as error:
        return _refused(error.code, error.detail)
    report = outcome.report
    verdict, findings = report.verification.verdict.value, report.verification.findings
    said = "; ".join(f"{f.reason.value}: {f.detail}" for f in findings if f.severity != "note")
    if outcome.problem is not None:
        return _refused(outcome.problem.code, said or outcome.problem.detail)

    def fresh() -> nn.Module:
        torch.manual_seed(0)
        module = declaration.construct(options)
        module.load_state_dict(torch.load(weights, weights_only=True), strict=False)
        return module.eval()

    artifact = job.work_dir / report.artifact.filename
    judged = judge(fresh, declaration.signature(options), artifact, plan_of(case, declaration), vars(case).get("extra"))
    trusted = verdict in ("pass", "pass_with_notes")
    outcome_word = "right" if judged.right and trusted else "told" if not trusted else "WRONG"
    told = said or "; ".join(judged.faults[:2])
    if not trusted and judged.right:
        told = f"(the file is right) {told}"
    return {"outcome": outcome_word, "result": verdict, "exporter": report.export.exporter, "told": told}


def _refused(code: str, words: str) -> dict[str, str]:
    return {"outcome": "CRASH" if code in UNDESIGNED else "told", "result": code, "exporter": "", "told": words}


def row_of(subject: Subject) -> Row:
    with tempfile.TemporaryDirectory(prefix="field-row-") as directory:
        results = Path(directory) / "row.json"
        process = multiprocessing.get_context("fork").Process(target=run, args=(subject, results))
        process.start()
        process.join(SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
        if results.exists():
            return Row(**json.loads(results.read_text()))
    words = f"the process ended with status {process.exitcode}"
    return Row(subject.name, "", subject.target, "CRASH", "", "", words, 0.0)


def table(rows: list[Row]) -> str:
    counts = Counter(row.outcome for row in rows)
    totals = ", ".join(f"{number} {word}" for word, number in sorted(counts.items()))
    every = len(list(subjects(CASES, [], list(TARGETS))))
    lines = [HEADING.format(conversions=len(rows), every=every, totals=totals)]
    for row in rows:
        cells = (row.case, row.report, row.target, row.outcome, f"`{row.result}`", row.exporter, row.told)
        lines.append("| " + " | ".join(cell(text) for text in cells) + " |")
    return "\n".join(lines) + "\n"


def cell(text: str, limit: int = 200) -> str:
    line = " ".join(text.split()).replace("|", "\\|")
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _earlier(file: Path | None) -> list[Row]:
    return [Row(**row) for row in json.loads(file.read_text())] if file is not None and file.exists() else []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", nargs="*", help="first letters of cases; all of them when none is given")
    parser.add_argument(
        "--target", choices=(*TARGETS, "pt2"), action="append", help="those of the table when none is given"
    )
    parser.add_argument("--cases", type=Path, default=CASES, help="the folder of plug-ins")
    parser.add_argument("--output", type=Path, help="where the table goes; nowhere when cases are named")
    parser.add_argument("--json", type=Path, help="the rows as JSON; those of an earlier run are not made again")
    arguments = parser.parse_args()
    rows = _earlier(arguments.json)
    known = {(row.case, row.target) for row in rows}
    for subject in subjects(arguments.cases, arguments.case, arguments.target or list(TARGETS)):
        if (subject.name, subject.target) in known:
            continue
        row = row_of(subject)
        rows.append(row)
        print(f"{row.outcome:6} {row.case:28} {row.target:11} {row.result:16} {row.exporter:12} {row.seconds:6.1f} s"
              f"  {cell(row.told, 300) if row.outcome != 'right' else ''}", flush=True)  # fmt: skip
        if arguments.json is not None:
            arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    rows.sort(key=lambda row: (row.case, row.target))
    output = arguments.output or (None if arguments.case else ROOT / "docs" / "field-cases.md")
    if output is not None:
        output.write_text(table(rows))
    print(", ".join(f"{number} {word}" for word, number in sorted(Counter(row.outcome for row in rows).items())))
    return int(any(row.outcome in ("WRONG", "CRASH") for row in rows))


if __name__ == "__main__":
    sys.exit(main())
