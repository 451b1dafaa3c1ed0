"""How long a conversion takes: Recast over HTTP against the scripts its users would run instead.

For each model, side by side in one run:
  cold    the script of cold_export.py as a process of its own, the better of the two exporters
  warm    ``torch.onnx.export`` alone, in a process that has exported this model before
  first   Recast, first conversion of the architecture, from POST to downloadable
  repeat  Recast, other weights of the same architecture, from POST to downloadable (median of REPEATS)
  graph   the same as a graph over the checkpoint, for the models of OVER_CHECKPOINT, with the bytes of the artifact
  floor   what no verified conversion can avoid (floor.py); without a float64 forward where the report asked for none
With --peers also ``torch.onnx.export(verify=True)`` as a script of its own, and for BERT the tools of peers.py.
With --targets instead repeat and floor of every target and precision that fills templates of its own.
Memory: the peaks of the conversion processes of first and repeat, and of a process that only loads and runs the module,
plus once the weights for a repeat and twice for a first.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from peers import peers_seconds
from service import running_service

from app.architectures.calibration import save_checkpoint
from app.architectures.registry import Registry, load_registry

HERE = Path(__file__).parent
MODELS = {
    "resnet18": "torchvision/resnet18",
    "resnet50": "torchvision/resnet50",
    "mobilenet_v3_small": "torchvision/mobilenet_v3_small",
    "densenet121": "torchvision/densenet121",
    "vit_b_16": "torchvision/vit_b_16",
    "swin_t": "torchvision/swin_t",
    "convnext_tiny": "torchvision/convnext_tiny",
    "bert": "transformers/bert",
}
OVER_CHECKPOINT = ("vit_b_16",)
TEMPLATE_TARGETS: tuple[dict[str, str], ...] = (
    {"target": "onnx"},
    {"target": "onnx", "precision": "fp16"},
    {"target": "onnx", "precision": "bf16"},
    {"target": "torchscript"},
    {"target": "pt2"},
    {"target": "safetensors"},
)
"""All that are not derived from another artifact. The first is what the others are compared with."""
REPEATS = 3
MB = 1e6


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(script: str, *arguments: str) -> tuple[float, float]:
    """Wall seconds of the process, and the number it printed last; infinite when it failed."""
    os.sync()  # what earlier steps left to be written to disk must not be charged to this one
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(HERE / script), *arguments],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        say(f"    {script} {' '.join(arguments)} failed: {done.stderr.strip().splitlines()[-1]}")
        return math.inf, math.inf
    return time.perf_counter() - started, float(done.stdout.split()[-1])


def convert(
    client: httpx.Client, architecture: str, checkpoint: Path, target: str = "onnx", **options: str
) -> tuple[float, dict[str, Any]]:
    """Seconds from POST to downloadable, and the finished conversion."""
    os.sync()
    started = time.perf_counter()
    with checkpoint.open("rb") as file:
        answer = client.post(
            "/v1/conversions",
            headers={"Prefer": "wait=600"},
            files={"file": (checkpoint.name, file)},
            data={"architecture": architecture, "target": target, "options": json.dumps(options)},
        )
    seconds = time.perf_counter() - started
    conversion = answer.json()
    if conversion.get("state") != "succeeded":
        raise SystemExit(f"{architecture}: {json.dumps(conversion, indent=1)[:4000]}")
    return seconds, conversion


def fetch(client: httpx.Client, conversion: dict[str, Any], path: Path) -> None:
    with client.stream("GET", f"/v1/conversions/{conversion['id']}/artifact") as answer, path.open("wb") as file:
        for chunk in answer.iter_bytes():
            file.write(chunk)


def saved(registry: Registry, model: str, directory: Path) -> list[Path]:
    """Checkpoints with other weights each: one for the first conversion, the others for repeats."""
    return [
        save_checkpoint(registry, MODELS[model], {}, directory / f"{model}-{seed}.pth", seed)
        for seed in range(REPEATS + 1)
    ]


def measure(client: httpx.Client, registry: Registry, model: str, directory: Path, threads: int) -> dict[str, float]:
    architecture = MODELS[model]
    checkpoints = saved(registry, model, directory)
    output = str(directory / "out.onnx")
    cold = {
        e: run("cold_export.py", model, str(checkpoints[0]), output, "--exporter", e)[0]
        for e in ("dynamo", "torchscript")
    }
    warm = run("cold_export.py", model, str(checkpoints[0]), output, "--exporter", "dynamo", "--warm")[1]
    first, done_first = convert(client, architecture, checkpoints[0])
    repeats = [convert(client, architecture, checkpoint) for checkpoint in checkpoints[1:]]
    reports = [report_of(client, done) for _, done in repeats]
    floor = floor_of(client, model, checkpoints[-1], repeats[-1][1], threads)
    eager = run("floor.py", model, str(checkpoints[-1]), "--threads", str(threads), "--eager-only")[1] * 1.048576
    weights = checkpoints[-1].stat().st_size / MB
    say(f"    {model}: {reports[-1]['timings']} {reports[-1]['verification']['timings']}")
    return {
        "cold_script_s": min(cold.values()),
        "warm_export_s": warm,
        "first_s": first,
        "repeat_s": statistics.median(seconds for seconds, _ in repeats),
        "floor_s": floor,
        "first_peak_mb": report_of(client, done_first)["peak_memory_bytes"] / MB,
        "first_allowed_mb": eager + 2 * weights,
        "repeat_peak_mb": max(report["peak_memory_bytes"] for report in reports) / MB,
        "eager_plus_weights_mb": eager + weights,
        **(over_checkpoint(client, architecture, checkpoints) if model in OVER_CHECKPOINT else {}),
    }


def floor_of(client: httpx.Client, model: str, checkpoint: Path, done: dict[str, Any], threads: int) -> float:
    """Seconds of floor.py on the artifact of that conversion, which is fetched to where the checkpoint lies."""
    artifact = checkpoint.parent / done["artifact"]["filename"]
    fetch(client, done, artifact)
    asked = ["--oracle"] if asked_the_oracle(report_of(client, done)) else []
    seconds = run("floor.py", model, str(checkpoint), str(artifact), "--threads", str(threads), *asked)[1]
    artifact.unlink()
    return seconds


def by_target(client: httpx.Client, registry: Registry, model: str, directory: Path, threads: int) -> None:
    """Print a row for each of TEMPLATE_TARGETS: median of REPEATS, floor, their ratio, and that ratio beside ONNX's."""
    architecture = MODELS[model]
    checkpoints = saved(registry, model, directory)
    reference = math.nan
    for options in TEMPLATE_TARGETS:
        _, *repeats = (convert(client, architecture, checkpoint, **options) for checkpoint in checkpoints)
        states = {done["template"]["state"] for _, done in repeats}
        repeat = statistics.median(seconds for seconds, _ in repeats)
        floor = floor_of(client, model, checkpoints[-1], repeats[-1][1], threads)
        reference = repeat / floor if math.isnan(reference) else reference
        ratios = f"{repeat / floor:.2f} | {repeat / floor / reference:.2f}"
        print(
            f"| {model} | {' '.join(options.values())} | {'/'.join(states)} | {repeat:.2f} | {floor:.2f} | {ratios} |"
        )


def report_of(client: httpx.Client, conversion: dict[str, Any]) -> dict[str, Any]:
    report: dict[str, Any] = client.get(f"/v1/conversions/{conversion['id']}/report").json()
    return report


def asked_the_oracle(report: dict[str, Any]) -> bool:
    outputs = (output for probe in report["verification"]["probes"] for output in probe["outputs"])
    return any(output["judged_by"] == "oracle" for output in outputs)


def over_checkpoint(client: httpx.Client, architecture: str, checkpoints: list[Path]) -> dict[str, float]:
    """The repeat whose artifact points into the client's own file; its template is another, and built before."""
    _, *repeats = (convert(client, architecture, path, external_data="checkpoint") for path in checkpoints)
    return {
        "graph_s": statistics.median(seconds for seconds, _ in repeats),
        "graph_bytes": max(done["artifact"]["bytes"] for _, done in repeats),
    }


def peers(model: str, checkpoint: Path, scratch: Path) -> dict[str, float]:
    """Seconds of what a user would run instead."""
    output = str(scratch / "out.onnx")
    checked = min(
        run("cold_export.py", model, str(checkpoint), output, "--exporter", "dynamo", "--verify")[0]
        for _ in range(REPEATS)
    )
    tools = peers_seconds(checkpoint, scratch, REPEATS) if model == "bert" else {}
    return {"torch.onnx.export(verify=True)": checked, **tools}


COLUMNS = (
    "model",
    "cold script",
    "warm export",
    "Recast first",
    "Recast repeat",
    "floor",
    "cold/repeat",
    "repeat/floor",
    "first/cold",
    "first/(warm+floor)",
    "first: peak MB / allowed",
    "repeat: peak MB / allowed",
)


def row(model: str, r: dict[str, float]) -> str:
    seconds = [r[name] for name in ("cold_script_s", "warm_export_s", "first_s", "repeat_s", "floor_s")]
    ratios = [
        r["cold_script_s"] / r["repeat_s"],
        r["repeat_s"] / r["floor_s"],
        r["first_s"] / r["cold_script_s"],
        r["first_s"] / (r["warm_export_s"] + r["floor_s"]),
    ]
    numbers = [f"{value:.2f}" for value in (*seconds, *ratios)]
    memory = [
        f"{r['first_peak_mb']:.0f} / {r['first_allowed_mb']:.0f}",
        f"{r['repeat_peak_mb']:.0f} / {r['eager_plus_weights_mb']:.0f}",
    ]
    return " | ".join((model, *numbers, *memory))


def print_table(results: dict[str, dict[str, float]]) -> None:
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    for model, r in results.items():
        print(f"| {row(model, r)} |")
    speedups = [r["cold_script_s"] / r["repeat_s"] for r in results.values()]
    overheads = [r["repeat_s"] / r["floor_s"] for r in results.values()]
    print(f"\ncold/repeat: median {statistics.median(speedups):.1f}, least {min(speedups):.1f}")
    print(f"repeat/floor: median {statistics.median(overheads):.2f}, most {max(overheads):.2f}")
    firsts = [r["first_s"] / r["cold_script_s"] for r in results.values()]
    print(f"first/cold: median {statistics.median(firsts):.2f}, most {max(firsts):.2f}")
    for model, r in results.items():
        if "graph_s" in r:
            share, size = r["graph_s"] / r["repeat_s"], r["graph_bytes"] / 1000
            print(
                f"{model} as a graph over the checkpoint: {r['graph_s']:.2f} s, {share:.2f} of a repeat, {size:.0f} kB"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument(
        "--scratch",
        type=Path,
        help="where checkpoints and the scripts' files lie; in memory (/dev/shm) they leave the disk to Recast",
    )
    parser.add_argument("--peers", action="store_true", help="also what a user would run instead of Recast")
    parser.add_argument("--targets", action="store_true", help="repeat and floor of every target with templates")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    arguments = parser.parse_args()
    registry = load_registry()
    threads = os.cpu_count() or 1
    results: dict[str, dict[str, float]] = {}
    others: dict[str, dict[str, float]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="recast-bench-", dir=arguments.scratch) as directory,
        running_service() as client,
    ):
        warmup = save_checkpoint(registry, "torchvision/squeezenet1_1", {}, Path(directory) / "warmup.pth")
        convert(client, "torchvision/squeezenet1_1", warmup)
        if arguments.targets:
            print("| model | target | template | repeat s | floor s | repeat/floor | of ONNX's |\n" + "|---" * 7 + "|")
            for model in arguments.models:
                by_target(client, registry, model, Path(directory), threads)
            return
        for model in arguments.models:
            say(f"==> {model}")
            results[model] = measure(client, registry, model, Path(directory), threads)
            if arguments.peers:
                others[model] = peers(model, Path(directory) / f"{model}-0.pth", Path(directory))
    print_table(results)
    for model, seconds in others.items():
        for name, value in seconds.items():
            ratios = f"Recast first {results[model]['first_s']:.1f}, repeat {results[model]['repeat_s']:.1f}"
            print(f"{model}, {name}: {value:.1f} s ({ratios})")
    if arguments.json:
        arguments.json.write_text(json.dumps({"models": results, "peers": others}, indent=1))


if __name__ == "__main__":
    main()
