"""The conversion matrix: every kind of architecture, to every target in every precision that it has.

Each architecture gets non-degenerate weights and is converted twice, with other weights the second time, so that the
second conversion fills the template of the first; each in a process of its own, as the service does it, without a
service. The table goes to docs/conversion-matrix.md. What came is kept in a file beside measurements, so that a run
that was cut short goes on where it stood; what other sources or libraries yielded is made anew, unless --keep-older
says that it still counts.
"""

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args

from app.architectures.calibration import save_checkpoint
from app.architectures.registry import Registry, load_registry
from app.cli.template_directory import TemplateDirectory
from app.conversion.job import ConversionJob, ConversionOutcome
from app.conversion.pipeline import convert
from app.domain.errors import Problem, RecastError
from app.domain.identifiers import conversion_id
from app.domain.versions import library_versions
from app.targets.specs import OPTIONS, SPECS
from scripts.field_cases import unheard
from scripts.own_process import apart

ROOT = Path(__file__).parent.parent
PLUGINS = ROOT / "tests" / "plugins"
LIBRARY_MODELS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("torchvision/resnet18", {}),
    ("torchvision/resnet50", {}),
    ("torchvision/mobilenet_v3_small", {}),
    ("torchvision/efficientnet_b0", {}),
    ("torchvision/vit_b_16", {}),
    ("torchvision/swin_t", {}),
    ("timm/vit_tiny_patch16_224", {}),
    ("timm/convnext_atto", {}),
    ("transformers/bert", {}),
)


@dataclass(frozen=True)
class Column:
    """A target in one precision."""

    target: str
    options: dict[str, Any]

    def __str__(self) -> str:
        return " ".join((self.target, *self.options.values()))


@dataclass(frozen=True)
class Cell:
    """What two conversions with different weights yielded; ``note`` is why it is no plain pass that is kept."""

    text: str
    note: str = ""


def columns() -> Iterator[Column]:
    """Every target, and every precision that its options name beside the default."""
    for name, spec in SPECS.items():
        yield Column(name, {})
        precision = spec.options.model_fields.get("precision")
        for other in get_args(precision.annotation) if precision else ():
            if other != precision.default:
                yield Column(name, {"precision": other})


def converted(job: ConversionJob, templates: Path) -> ConversionOutcome | Problem:
    """What came of it; a template that it certified is kept in ``templates``."""
    warnings.simplefilter("ignore")
    directory = TemplateDirectory(templates)
    try:
        outcome = convert(job, unheard, directory)
    except RecastError as error:
        return error.problem()
    if outcome.template is not None:
        directory.keep(outcome.template)
    return outcome


def cell_of(name: str, options: dict[str, Any], column: Column, checkpoints: Sequence[Path]) -> Cell:
    """Verdict and worst ratio of each, how the first was exported, and whether the second filled its template."""
    texts, notes = [], []
    with tempfile.TemporaryDirectory() as directory:
        for number, checkpoint in enumerate(checkpoints):
            work = Path(directory) / f"work-{number}"
            work.mkdir()
            job = ConversionJob(
                conversion_id=conversion_id(),
                checkpoint=checkpoint,
                checkpoint_sha256=sha256(checkpoint.read_bytes()).hexdigest(),
                architecture=name,
                architecture_options=options,
                options=OPTIONS.validate_python({"target": column.target, **column.options}),
                work_dir=work,
                plugins_dir=PLUGINS,
            )
            try:
                came = apart(converted, job, Path(directory) / "templates")
            except ChildProcessError as crash:
                texts.append("crashed")
                notes.append(str(crash))
                continue
            text, told = _described(came, repeated=number > 0)
            texts.append(text)
            notes += told
    return Cell("<br>".join(dict.fromkeys(texts)), "; ".join(dict.fromkeys(notes)))


def _described(came: ConversionOutcome | Problem, *, repeated: bool) -> tuple[str, list[str]]:
    """The text of a cell, and what it is to be explained with."""
    problem = came if isinstance(came, Problem) else came.problem
    if problem is not None:
        return f"failed: `{problem.code}`", [problem.detail]
    assert isinstance(came, ConversionOutcome)
    verification, export = came.report.verification, came.report.export
    worst = max((output.ratio for probe in verification.probes for output in probe.outputs), default=0.0)
    use = export.template
    how = (use.state if use else "none") if repeated else export.exporter
    told = [f"{finding.reason}: {finding.detail}" for finding in verification.findings]
    told += [use.reason] if use and use.reason else []
    return f"{verification.verdict} {worst:.2f} ({how})", told


class Kept:
    """Cells by architecture and column, in a file that is written after each."""

    def __init__(self, path: Path, *, older: bool) -> None:
        self._path, self._made_by = path, made_by()
        entries = json.loads(path.read_text()) if path.exists() else []
        self._entries = [entry for entry in entries if older or entry["made_by"] == self._made_by]

    def __getitem__(self, at: tuple[str, str]) -> Cell | None:
        found = [entry["cell"] for entry in self._entries if (entry["architecture"], entry["column"]) == at]
        return Cell(**found[-1]) if found else None

    def __setitem__(self, at: tuple[str, str], cell: Cell) -> None:
        name, column = at
        self._entries.append({"architecture": name, "column": column, "cell": asdict(cell), "made_by": self._made_by})
        self._path.parent.mkdir(exist_ok=True)
        self._path.write_text(json.dumps(self._entries, indent=1) + "\n")


def made_by() -> str:
    """A digest of what can change a cell: our sources, those of the architectures, and the libraries' versions."""
    sources = sorted([*(ROOT / "app").rglob("*.py"), *PLUGINS.rglob("*.py")])
    digests = {str(path.relative_to(ROOT)): sha256(path.read_bytes()).hexdigest() for path in sources}
    return sha256(json.dumps([digests, library_versions()], sort_keys=True).encode()).hexdigest()


def fill(registry: Registry, chosen: Sequence[tuple[str, dict[str, Any]]], asked: Sequence[Column], kept: Kept) -> None:
    """Convert for every cell that is not there."""
    for name, options in chosen:
        missing = [column for column in asked if kept[name, str(column)] is None]
        with tempfile.TemporaryDirectory() as directory:
            files = [Path(directory) / f"{seed}.pth" for seed in (0, 1)] if missing else []
            for seed, file in enumerate(files):
                apart(save_checkpoint, registry, name, options, file, seed)
            for column in missing:
                cell = cell_of(name, options, column, files)
                kept[name, str(column)] = cell
                print(f"==> {name} to {column}: {cell.text}  {cell.note}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "conversion-matrix.md")
    parser.add_argument("--kept", type=Path, default=ROOT / "bench-results" / "conversion-matrix.json")
    parser.add_argument("--keep-older", action="store_true", help="let cells count that other sources yielded")
    parser.add_argument("--only", nargs="+", help="names to convert instead of all")
    parser.add_argument("--columns", nargs="+", help='columns to fill instead of all, such as "onnx fp16"')
    parser.add_argument("--convert-nothing", action="store_true", help="write the table of what is kept")
    arguments = parser.parse_args()
    registry, kept = load_registry(PLUGINS), Kept(arguments.kept, older=arguments.keep_older)
    libraries = ("torchvision/", "timm/", "transformers/")
    plugins: list[tuple[str, dict[str, Any]]] = [
        (name, {}) for name in registry.names() if not name.startswith(libraries)
    ]
    rows = [(n, o) for n, o in (*plugins, *LIBRARY_MODELS) if not arguments.only or n in arguments.only]
    asked = [column for column in columns() if not arguments.columns or str(column) in arguments.columns]
    if not arguments.convert_nothing:
        fill(registry, rows, asked, kept)
    arguments.output.write_text(table(asked, {name: [kept[name, str(column)] for column in asked] for name, _ in rows}))


def table(asked: Sequence[Column], rows: Mapping[str, Sequence[Cell | None]]) -> str:
    lines = [
        "# Conversion matrix",
        "",
        "Made by `scripts/conversion-matrix`: each architecture with non-degenerate weights, to each target in each",
        "precision, with the axes dynamic that it declares. Of each conversion: the verdict, the worst error divided",
        "by its gate (at most 1 passes), and in brackets the exporter. The second line is that of other weights:",
        "`reused` means that it filled the template of the first. A dash: not run.",
        "",
        f"| architecture | {' | '.join(map(str, asked))} |",
        f"|---|{'---|' * len(asked)}",
        *(f"| {name} | {' | '.join(cell.text if cell else '–' for cell in cells)} |" for name, cells in rows.items()),
        "",
        "What is not a plain pass, in the words of the report:",
        "",
    ]
    for name, cells in rows.items():
        for column, cell in zip(asked, cells, strict=True):
            if cell is not None and cell.note:
                lines.append(f"- **{name} to {column}**: {shortened(cell.note)}")
    return "\n".join(lines) + "\n"


def shortened(text: str, limit: int = 300) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


if __name__ == "__main__":
    main()
