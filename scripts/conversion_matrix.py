"""The conversion matrix: every kind of architecture, to every target in every precision that it has, over HTTP.

Each architecture gets non-degenerate weights and is converted twice, with other weights the second time, so that the
second conversion fills the template of the first. The table goes to docs/conversion-matrix.md.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import httpx
from service import running_service

from app.architectures.calibration import save_checkpoint
from app.architectures.registry import load_registry
from app.targets.specs import SPECS

PLUGINS = Path(__file__).parent.parent / "tests" / "plugins"
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


def convert(client: httpx.Client, name: str, options: dict[str, Any], column: Column, checkpoint: Path) -> Any:
    with checkpoint.open("rb") as file:
        return client.post(
            "/v1/conversions",
            headers={"Prefer": "wait=900"},
            files={"file": (checkpoint.name, file)},
            data={
                "architecture": name,
                "architecture_options": json.dumps(options),
                "target": column.target,
                "options": json.dumps(column.options),
            },
        ).json()


def described(client: httpx.Client, first: dict[str, Any], second: dict[str, Any]) -> Cell:
    """Verdict and worst ratio of each, how the first was exported, and whether the second filled its template."""
    texts, notes = [], []
    for conversion in (first, second):
        if conversion.get("state") != "succeeded":
            problem = conversion.get("problem") or conversion
            texts.append(f"{conversion.get('state', 'refused')}: `{problem.get('code')}`")
            notes.append(str(problem.get("detail")))
            continue
        report = client.get(f"/v1/conversions/{conversion['id']}/report").json()
        verification, export = report["verification"], report["export"]
        worst = max((o["ratio"] for p in verification["probes"] for o in p["outputs"]), default=0.0)
        use = export["template"] or {}
        how = export["exporter"] if conversion is first else use.get("state", "none")
        texts.append(f"{verification['verdict']} {worst:.2f} ({how})")
        notes += [f"{finding['reason']}: {finding['detail']}" for finding in verification["findings"]]
        notes += [use["reason"]] if use.get("reason") else []
    return Cell("<br>".join(dict.fromkeys(texts)), "; ".join(dict.fromkeys(notes)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("docs/conversion-matrix.md"))
    parser.add_argument("--only", nargs="+", help="names to convert instead of all")
    parser.add_argument("--columns", nargs="+", help='columns to fill instead of all, such as "onnx fp16"')
    arguments = parser.parse_args()
    registry = load_registry(PLUGINS)
    libraries = ("torchvision/", "timm/", "transformers/")
    plugins = [(name, {}) for name in registry.names() if not name.startswith(libraries)]
    chosen = [(n, o) for n, o in (*LIBRARY_MODELS, *plugins) if not arguments.only or n in arguments.only]
    kept = [column for column in columns() if not arguments.columns or str(column) in arguments.columns]
    rows: dict[str, list[Cell]] = {}
    with tempfile.TemporaryDirectory() as directory, running_service(plugins_dir=str(PLUGINS)) as client:
        for name, options in chosen:
            checkpoints = [save_checkpoint(registry, name, options, Path(directory) / f"{s}.pth", s) for s in (0, 1)]
            for column in kept:
                cell = described(client, *(convert(client, name, options, column, file) for file in checkpoints))
                rows.setdefault(name, []).append(cell)
                print(f"==> {name} to {column}: {cell.text}  {cell.note}", file=sys.stderr, flush=True)
            arguments.output.write_text(table(kept, rows))


def table(kept: list[Column], rows: dict[str, list[Cell]]) -> str:
    lines = [
        "# Conversion matrix",
        "",
        "Made by `scripts/conversion-matrix`: each architecture with non-degenerate weights, to each target in each",
        "precision, with the axes dynamic that it declares. Of each conversion: the verdict, the worst error divided",
        "by its gate (at most 1 passes), and in brackets the exporter. The second line is that of other weights:",
        "`reused` means that it filled the template of the first.",
        "",
        f"| architecture | {' | '.join(map(str, kept))} |",
        f"|---|{'---|' * len(kept)}",
        *(f"| {name} | {' | '.join(cell.text for cell in cells)} |" for name, cells in rows.items()),
        "",
        "What is not a plain pass, in the words of the report:",
        "",
    ]
    for name, cells in rows.items():
        for column, cell in zip(kept, cells, strict=True):
            if cell.note:
                lines.append(f"- **{name} to {column}**: {shortened(cell.note)}")
    return "\n".join(lines) + "\n"


def shortened(text: str, limit: int = 300) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


if __name__ == "__main__":
    main()
