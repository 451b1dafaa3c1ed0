"""The conversion matrix: every kind of architecture, to ONNX with a dynamic batch and to TorchScript, over HTTP.

Each architecture gets non-degenerate weights and is converted twice per target, with other weights the second time, so
that the second conversion fills the template of the first. The table goes to docs/conversion-matrix.md.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
from service import running_service

from app.architectures.calibration import save_checkpoint
from app.architectures.registry import load_registry

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
TARGETS = ("onnx", "torchscript")


def convert(client: httpx.Client, name: str, options: dict[str, Any], target: str, checkpoint: Path) -> dict[str, Any]:
    with checkpoint.open("rb") as file:
        answer = client.post(
            "/v1/conversions",
            headers={"Prefer": "wait=900"},
            files={"file": (checkpoint.name, file)},
            data={"architecture": name, "target": target, "architecture_options": json.dumps(options)},
        )
    result: dict[str, Any] = answer.json()
    return result


def describe(client: httpx.Client, conversion: dict[str, Any]) -> dict[str, str]:
    """The cells of one row."""
    if conversion.get("state") != "succeeded":
        problem = conversion.get("problem") or conversion
        result = f"{conversion.get('state', 'refused')}: `{problem.get('code')}`"
        return {"result": result, "why": str(problem.get("detail"))}
    report = client.get(f"/v1/conversions/{conversion['id']}/report").json()
    verification, export = report["verification"], report["export"]
    worst = max((o["ratio"] for p in verification["probes"] for o in p["outputs"]), default=0.0)
    use = export["template"] or {}
    reasons = ", ".join(finding["reason"] for finding in verification["findings"])
    return {
        "result": f"{verification['verdict']}" + (f" ({reasons})" if reasons else ""),
        "exporter": export["exporter"],
        "ratio": f"{worst:.2f}",
        "template": use.get("state", "none"),
        "why": use.get("reason") or "",
    }


def shortened(text: str, limit: int = 160) -> str:
    line = " ".join(text.split()).replace("|", "\\|")
    return line if len(line) <= limit else line[: limit - 1] + "…"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("docs/conversion-matrix.md"))
    parser.add_argument("--only", nargs="+", help="names to convert instead of all")
    arguments = parser.parse_args()
    registry = load_registry(PLUGINS)
    libraries = ("torchvision/", "timm/", "transformers/")
    plugins = [(name, {}) for name in registry.names() if not name.startswith(libraries)]
    chosen = [(n, o) for n, o in (*LIBRARY_MODELS, *plugins) if not arguments.only or n in arguments.only]
    rows = []
    with tempfile.TemporaryDirectory() as directory, running_service(plugins_dir=str(PLUGINS)) as client:
        for name, options in chosen:
            checkpoints = [save_checkpoint(registry, name, options, Path(directory) / f"{s}.pth", s) for s in (0, 1)]
            for target in TARGETS:
                print(f"==> {name} to {target}", file=sys.stderr, flush=True)
                first, second = (describe(client, convert(client, name, options, target, c)) for c in checkpoints)
                rows.append((name, target, first, second))
                print(f"    {first}\n    {second}", file=sys.stderr, flush=True)
    arguments.output.write_text(table(rows))


def table(rows: list[tuple[str, str, dict[str, str], dict[str, str]]]) -> str:
    lines = [
        "# Conversion matrix",
        "",
        "Made by `scripts/conversion-matrix`: each architecture with non-degenerate weights, to ONNX with a dynamic",
        "batch, and to TorchScript. *Ratio* is the worst error divided by its gate (at most 1 passes). *Second* is a",
        "conversion of other weights: `reused` means that it filled the template of the first.",
        "",
        "| architecture | target | result | exporter | ratio | second: result | template | ratio | note |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, target, first, second in rows:
        cells = (
            name,
            target,
            first["result"],
            first.get("exporter", "–"),
            first.get("ratio", "–"),
            second["result"],
            second.get("template", "–"),
            second.get("ratio", "–"),
            shortened(second["why"] or first["why"]),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
