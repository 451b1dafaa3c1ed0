"""The exporters of ONNX against each other: what each costs, and what its artifact is worth.

    scripts/bench/exporters [--only NAME ...] [--json FILE]

Each architecture is converted in full once per exporter, in a forked process of its own, as the service does it; then
all its artifacts run in turn in onnxruntime, one thread, so that what loads the machine loads each alike. The decision
that rests on it: docs/decisions/0014-exporters-order.md.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import onnx
import onnxruntime
import torch

from app.architectures.calibration import save_checkpoint
from app.architectures.registry import Registry, load_registry
from app.architectures.sample import sample_inputs
from app.conversion.job import ConversionJob
from app.conversion.pipeline import convert
from app.domain.errors import RecastError
from app.targets.onnx.spec import OnnxOptions
from app.targets.writer import writer_of
from scripts.field_cases import NoTemplates, unheard

PLUGINS = Path(__file__).parents[2] / "tests" / "plugins"
ARCHITECTURES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("torchvision/resnet18", {}),
    ("torchvision/resnet50", {}),
    ("torchvision/mobilenet_v3_small", {}),
    ("torchvision/efficientnet_b0", {}),
    ("torchvision/densenet121", {}),
    ("torchvision/googlenet", {}),
    ("torchvision/inception_v3", {}),
    ("torchvision/shufflenet_v2_x1_0", {}),
    ("torchvision/regnet_y_400mf", {}),
    ("torchvision/vit_b_16", {}),
    ("torchvision/swin_t", {}),
    ("torchvision/swin_v2_t", {}),
    ("torchvision/convnext_tiny", {}),
    ("torchvision/maxvit_t", {}),
    ("torchvision/lraspp_mobilenet_v3_large", {}),
    ("torchvision/r3d_18", {}),
    ("timm/vit_tiny_patch16_224", {}),
    ("timm/convnext_atto", {}),
    ("timm/efficientvit_b0", {}),
    ("timm/mixer_s32_224", {}),
    ("timm/convnextv2_atto", {}),
    ("timm/levit_128s", {}),
    ("transformers/bert", {}),
    ("transformers/distilbert", {}),
    ("transformers/roberta", {}),
    ("transformers/gpt2", {}),
    ("transformers/t5", {}),
    ("transformers/vit", {}),
    ("transformers/deberta-v2", {}),
    ("transformers/wav2vec2", {}),
)
EXPORTERS = ("dynamo", "torchscript")
RUNS = 15


@dataclass(frozen=True)
class Conversion:
    """What one exporter made of one architecture; seconds are of this machine at that moment."""

    exporter: str
    outcome: str
    export_seconds: float
    total_seconds: float
    ratio: float | None = None
    """Worst error by its gate."""
    template: str | None = None
    nodes: int | None = None
    opset: int | None = None
    dims: str | None = None
    milliseconds: float | None = None
    """The fastest of RUNS runs of the declared sample."""


def converted(name: str, options: dict[str, Any], checkpoint: Path, exporter: str, directory: Path) -> Conversion:
    directory.mkdir()
    job = ConversionJob(
        conversion_id=f"bench-{exporter}",
        checkpoint=checkpoint,
        checkpoint_sha256="0" * 64,
        architecture=name,
        architecture_options=options,
        options=OnnxOptions(exporter=exporter),  # type: ignore[arg-type]
        work_dir=directory,
        plugins_dir=PLUGINS,
    )
    began = time.perf_counter()
    try:
        outcome = convert(job, unheard, NoTemplates())
    except RecastError as error:
        return Conversion(exporter, f"{error.code}: {error.detail}"[:300], 0.0, time.perf_counter() - began)
    total = time.perf_counter() - began
    report = outcome.report
    found = report.verification
    artifact = next(directory.glob("*.onnx"))
    artifact.rename(directory / "artifact.onnx")
    model = onnx.load(str(directory / "artifact.onnx"), load_external_data=False)
    reasons = ", ".join(dict.fromkeys(finding.reason.value for finding in found.findings))
    use = report.export.template
    return Conversion(
        exporter=report.export.exporter,
        outcome=found.verdict.value + (f" ({reasons})" if reasons else ""),
        export_seconds=report.timings["export"],
        total_seconds=total,
        ratio=found.worst_ratio,
        template=use.state if use else None,
        nodes=len(model.graph.node),
        opset=report.export.opset,
        dims=", ".join(f"{a.input}.{a.axis} {a.delivered if a.passed else 'wrong'}" for a in found.dims),
    )


def latencies(registry: Registry, name: str, options: dict[str, Any], artifacts: list[Path]) -> list[float]:
    """Milliseconds of each artifact's fastest run."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    sessions = [onnxruntime.InferenceSession(str(path), settings) for path in artifacts]
    signature = registry.resolve(name, options).signature
    sample = sample_inputs(signature, {}, torch.Generator().manual_seed(0))
    best = [float("inf")] * len(sessions)
    for _ in range(RUNS):
        for at, session in enumerate(sessions):
            feed = {node.name: sample[node.name].numpy() for node in session.get_inputs()}
            began = time.perf_counter()
            session.run(None, feed)
            best[at] = min(best[at], (time.perf_counter() - began) * 1000)
    return best


def compared(registry: Registry, name: str, options: dict[str, Any], scratch: Path) -> list[dict[str, Any]]:
    checkpoint = save_checkpoint(registry, name, options, scratch / "weights.pth")
    forked = multiprocessing.get_context("fork")
    found = []
    for exporter in EXPORTERS:
        with forked.Pool(1) as pool:
            found.append(asdict(pool.apply(converted, (name, options, checkpoint, exporter, scratch / exporter))))
    paths = {exporter: scratch / exporter / "artifact.onnx" for exporter in EXPORTERS}
    made = [at for at, exporter in enumerate(EXPORTERS) if paths[exporter].exists()]
    with forked.Pool(1) as pool:
        measured = pool.apply(latencies, (registry, name, options, [paths[EXPORTERS[at]] for at in made]))
    for at, milliseconds in zip(made, measured, strict=True):
        found[at]["milliseconds"] = milliseconds
    return found


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    lines = [
        "| architecture | exporter | verdict | export s | total s | ratio | nodes | opset | axes | ms | template |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, rows in results.items():
        for r in rows:
            figures = [f"{r[key]:.2f}" if r[key] is not None else "–" for key in ("ratio", "milliseconds")]
            cells = [name, r["exporter"], r["outcome"][:60].replace("|", "/"), f"{r['export_seconds']:.1f}"]
            cells += [f"{r['total_seconds']:.1f}", figures[0], str(r["nodes"]), str(r["opset"])]
            cells += [str(r["dims"]), figures[1], str(r["template"])]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", help="names to compare instead of all")
    parser.add_argument("--json", type=Path, help="write the figures there, after each architecture")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    writer_of("onnx").warm()
    registry = load_registry(PLUGINS)
    known = dict(ARCHITECTURES)
    chosen = [(name, known.get(name, {})) for name in arguments.only or known]
    results: dict[str, list[dict[str, Any]]] = {}
    for name, options in chosen:
        with tempfile.TemporaryDirectory(prefix="recast-bench-") as scratch:
            results[name] = compared(registry, name, options, Path(scratch))
        print(table({name: results[name]}).splitlines()[2:], file=sys.stderr, flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=1))
    print(table(results))


if __name__ == "__main__":
    main()
