"""A draw of the registry's entries, each converted to both targets and judged independently at other sizes.

right: the artifact passed, and the judge agrees. told: there is none to trust, a code says why, and plain torch does no
better. false refusal: told, but what plain torch exports is right. WRONG: passed, and the judge disagrees. CRASH: ended
without a designed code, in time or memory too. Entries beyond --largest and those that give no weights are listed and
counted as well, and others are drawn in their place. Every conversion and export runs in a process of its own. With
--json a run goes on where the last one ended. The exit status is 1 for WRONG or CRASH.
"""

import argparse
import contextlib
import copy
import itertools
import json
import logging
import multiprocessing
import os
import random
import re
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from app.architectures.calibration import save_checkpoint
from app.architectures.calling import EagerModel, bind
from app.architectures.registry import Registry, load_registry
from app.architectures.sample import sample_inputs
from app.conversion.job import ConversionJob
from app.conversion.pipeline import convert
from app.domain.architecture import Axis, Signature
from app.domain.errors import RecastError
from app.domain.identifiers import conversion_id
from app.targets.specs import OPTIONS
from scripts.artifact_judge import judge, tensors_of
from scripts.field_cases import TARGETS, UNDESIGNED, NoTemplates, cell, unheard

BOTH = "both"
FEWER = dict.fromkeys(("num_hidden_layers", "num_layers", "n_layers", "n_layer", "encoder_layers", "decoder_layers"), 2)
NARROWER = {
    **{"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16},
    "vocab_size": 1000,
}
SMALLER = ({**FEWER, **NARROWER}, {**FEWER, "vocab_size": 1000}, FEWER)
"""What --shrink asks of transformers' entries that have such options: their defaults are models of many gigabytes. The
first that builds is taken."""
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
LARGE, UNBUILT = "too large", "no weights"
BY_HAND = {"onnx": ("dynamo=False", "dynamo=True"), "torchscript": ("jit.trace",)}
"""What plain torch has for each target."""

HEADING = """# Registry sample

{entries} entries of torchvision, timm and transformers, drawn at random (seed {seed}), with default options and
non-degenerate weights, converted to both targets. Each artifact is judged by `scripts/artifact_judge.py`, which shares
no code with the verification, at sizes and inputs that Recast did not choose. Made by `scripts/registry-sample`.
Shrunk entries have as many of these as they know and can be built with: {smaller}.

{totals}.

**right**: passed, and the judge agrees. **told**: refused or inconclusive, in words, and plain torch
(`torch.jit.trace`, `torch.onnx.export` with `dynamo=False` and `dynamo=True`) does no better. **false refusal**: told,
but what plain torch exports is right. **WRONG**: passed, and the judge disagrees. **CRASH**: ended without a designed
code. **too large**: more than {largest} MB of weights, not tried. **no weights**: cannot be built or run with its
default options, not tried.

| entry | MB | target | outcome | result | exporter | told | s |
|---|---|---|---|---|---|---|---|"""


@dataclass(frozen=True)
class Row:
    entry: str
    target: str
    outcome: str
    megabytes: float = 0.0
    result: str = ""
    exporter: str = ""
    told: str = ""
    shrunk: bool = False
    seconds: float = 0.0


@dataclass(frozen=True)
class Subject:
    """An entry with its options; its checkpoint is to lie at ``weights``."""

    entry: str
    options: dict[str, Any]
    weights: Path

    def signature(self, registry: Registry) -> Signature:
        return registry.resolve(self.entry, self.options).signature

    def loaded(self, registry: Registry) -> nn.Module:
        module = registry.build(self.entry, self.options, initialised=True)
        module.load_state_dict(torch.load(self.weights, weights_only=True))
        return module.eval()


@dataclass(frozen=True)
class Bounds:
    """Of each process: seconds, and bytes of private memory. ``largest`` is in MB of weights."""

    seconds: float
    memory: int
    largest: float


def draw(registry: Registry, seed: int) -> Iterator[str]:
    """Every entry once, in random order, the libraries taking turns."""
    libraries: dict[str, list[str]] = {}
    for name in registry.names():
        libraries.setdefault(name.partition("/")[0], []).append(name)
    for names in libraries.values():
        random.Random(seed).shuffle(names)
    turns = itertools.chain.from_iterable(itertools.zip_longest(*(libraries[key] for key in sorted(libraries))))
    return (name for name in turns if name is not None)


def apart(bounds: Bounds, task: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """What the task returns in a process of its own; {"died": words} where it came to no return."""
    with tempfile.TemporaryDirectory(prefix="registry-") as directory:
        results = Path(directory) / "result.json"
        process = multiprocessing.get_context("fork").Process(target=_run, args=(bounds, results, task, arguments))
        process.start()
        process.join(bounds.seconds)
        late = process.is_alive()
        if late:
            process.kill()
            process.join()
        if results.exists():
            result: dict[str, Any] = json.loads(results.read_text())
            return result
    return {"died": f"took more than {bounds.seconds:.0f} s" if late else f"ended with status {process.exitcode}"}


def _run(bounds: Bounds, results: Path, task: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # exporters print whole graphs
        os.dup2(nothing, stream)
    resource.setrlimit(resource.RLIMIT_DATA, (bounds.memory, bounds.memory))
    try:
        result = task(*arguments)
    except RecastError as error:
        result = {"code": error.code, "words": error.detail}
    except Exception as error:  # noqa: BLE001 - what no one designed is what this script looks for
        result = {"code": "internal", "words": f"{type(error).__name__}: {error}"}
    written = results.with_suffix(".part")
    written.write_text(json.dumps(result))
    written.rename(results)


def save_weights(registry: Registry, subject: Subject, seed: int, largest: float) -> dict[str, Any]:
    parameters = registry.build(subject.entry, subject.options).state_dict().values()
    megabytes = sum(tensor.numel() * tensor.element_size() for tensor in parameters) / 1e6
    if megabytes <= largest:
        save_checkpoint(registry, subject.entry, subject.options, subject.weights, seed)
    return {"megabytes": megabytes}


def shrunk(registry: Registry, entry: str) -> dict[str, Any]:
    """The options of SMALLER with which the entry can be built; none for other libraries."""
    if not entry.startswith("transformers/"):
        return {}
    properties = registry.describe(entry).options_schema["properties"]
    for smaller in SMALLER:
        options = {name: value for name, value in smaller.items() if name in properties}
        with contextlib.suppress(RecastError):
            registry.build(entry, options)
            return options
    return {}


def converted(registry: Registry, subject: Subject, target: str) -> dict[str, Any]:
    """Converts, and judges what was delivered."""
    with tempfile.TemporaryDirectory(dir=subject.weights.parent) as work:
        job = ConversionJob(
            conversion_id=conversion_id(),
            checkpoint=subject.weights,
            checkpoint_sha256="0" * 64,
            architecture=subject.entry,
            architecture_options=subject.options,
            options=OPTIONS.validate_python({"target": target}),
            work_dir=Path(work),
        )
        outcome = convert(job, unheard, NoTemplates())
        report = outcome.report
        verdict = report.verification.verdict.value
        said = "; ".join(f"{f.reason.value}: {f.detail}" for f in report.verification.findings if f.severity != "note")
        if outcome.problem is not None:
            return {"code": outcome.problem.code, "words": said or outcome.problem.detail}
        if verdict not in ("pass", "pass_with_notes"):
            return {"code": verdict, "words": said}
        faults = _judged(registry, subject, Path(work) / report.artifact.filename, nn.Module.eval)
        exporter = report.export.exporter
        return {"verdict": verdict, "exporter": exporter, "faults": faults}


def by_hand(registry: Registry, subject: Subject, way: str) -> dict[str, Any]:
    """What plain torch makes of the same weights, with the same axes left free, and what the judge has against it."""
    signature = subject.signature(registry)

    def positional(module: nn.Module) -> nn.Module:
        return Positional(module, signature).eval()

    module = positional(subject.loaded(registry))
    generator = torch.Generator().manual_seed(1)
    inputs = tuple(sample_inputs(signature, {}, generator).values())
    axes = [{at: size for at, size in enumerate(s.shape) if isinstance(size, str)} for s in signature.inputs]
    names = [spec.name for spec in signature.inputs]
    artifact = subject.weights.parent / ("by-hand.pt" if way == "jit.trace" else "by-hand.onnx")
    with torch.no_grad():
        if way == "jit.trace":
            torch.jit.trace(module, inputs, check_trace=False).save(str(artifact))
        elif way == "dynamo=False":
            dynamic = dict(zip(names, axes, strict=True))
            torch.onnx.export(
                module, inputs, str(artifact), dynamo=False, input_names=names, dynamic_axes=dynamic, opset_version=17
            )
        else:
            shapes = {"inputs": tuple(axis or None for axis in axes)}
            torch.onnx.export(
                module, inputs, str(artifact), dynamo=True, input_names=names, dynamic_shapes=shapes, verbose=False
            )
    return {"faults": _judged(registry, subject, artifact, positional)}


class Positional(nn.Module):
    """Inputs by position in, a tuple of tensors out: what one writes by hand around a model that takes keywords."""

    def __init__(self, module: nn.Module, signature: Signature) -> None:
        super().__init__()
        self.module = module
        self._signature = signature

    def forward(self, *inputs: Tensor | list[Tensor]) -> tuple[Tensor, ...]:
        tensors = [value[0] if isinstance(value, list) else value for value in inputs]  # of a list, its only element
        named = dict(zip((spec.name for spec in self._signature.inputs), tensors, strict=True))
        args, kwargs = bind(EagerModel(self.module, self._signature), named)
        return tuple(tensors_of(self.module(*args, **kwargs)))


def _judged(registry: Registry, subject: Subject, artifact: Path, form: Callable[[nn.Module], nn.Module]) -> list[str]:
    pristine, signature = subject.loaded(registry), subject.signature(registry)
    plan = {axis.name: _sizes(axis) for axis in signature.axes}
    judged = judge(lambda: form(copy.deepcopy(pristine)), signature, artifact, plan)
    return list(judged.faults) if judged.trials else ["eager refuses every trial"]


def _sizes(axis: Axis) -> list[int]:
    """Admissible sizes: small batches; of another axis the least, the exported, the next, and half as much again."""
    step = axis.multiple_of
    if axis.name == "batch":
        wanted = [1, 2, 3, 5]
    else:
        wanted = [axis.minimum, axis.sample, axis.sample + step, axis.sample * 3 // 2 // step * step]
    most = axis.maximum or max(wanted)
    return sorted({size for size in wanted if max(axis.minimum, 1) <= size <= most and size % step == 0})


def rows_of(
    registry: Registry, entry: str, options: dict[str, Any], *, seed: int, bounds: Bounds, known: dict[str, Row]
) -> Iterator[Row]:
    """The rows of one entry that are not known yet."""
    with tempfile.TemporaryDirectory(prefix="registry-") as directory:
        subject = Subject(entry, options, Path(directory) / "weights.pth")
        made = apart(bounds, save_weights, registry, subject, seed, bounds.largest)
        size = {"megabytes": made.get("megabytes", 0.0), "shrunk": bool(options)}
        if made.get("megabytes", 0.0) > bounds.largest:
            yield Row(entry, BOTH, LARGE, **size)
        elif "megabytes" not in made:
            words = made.get("words") or made["died"]
            yield Row(entry, BOTH, UNBUILT, result=made.get("code", ""), told=words, **size)
        else:
            for target in TARGETS:
                if target not in known:
                    started = time.perf_counter()
                    row = _row(registry, subject, target, bounds)
                    yield replace(row, **size, seconds=time.perf_counter() - started)


def _row(registry: Registry, subject: Subject, target: str, bounds: Bounds) -> Row:
    result = apart(bounds, converted, registry, subject, target)
    if "died" in result:
        return Row(subject.entry, target, "CRASH", told=result["died"])
    if "verdict" in result:
        told = "; ".join(result["faults"][:2])
        outcome = "WRONG" if result["faults"] else "right"
        return Row(subject.entry, target, outcome, result=result["verdict"], exporter=result["exporter"], told=told)
    if result["code"] in UNDESIGNED:
        return Row(subject.entry, target, "CRASH", result=result["code"], told=result["words"])
    tried = {way: apart(bounds, by_hand, registry, subject, way) for way in BY_HAND[target]}
    right = [way for way, hand in tried.items() if hand.get("faults") == []]
    plain = "; ".join(f"{way}: {_said(hand)}" for way, hand in tried.items())
    outcome = "false refusal" if right else "told"
    return Row(subject.entry, target, outcome, result=result["code"], told=f"[{plain}] {result['words']}")


def _said(hand: dict[str, Any]) -> str:
    if hand.get("faults") == []:
        return "right"
    words = "wrong, " + hand["faults"][0] if "faults" in hand else hand.get("words") or hand["died"]
    return cell(COLOURS.sub("", words), 120)


def totals(rows: list[Row]) -> str:
    counts = Counter(row.outcome for row in rows)
    words = ("right", "told", "WRONG", "CRASH", "false refusal", LARGE, UNBUILT)
    return ", ".join(f"{counts[word]} {word}" for word in words)


def table(rows: list[Row], seed: int, largest: float) -> str:
    entries = len({row.entry for row in rows if row.target != BOTH})
    smaller = ", ".join(f"`{name}={value}`" for name, value in SMALLER[0].items())
    heading = {"entries": entries, "seed": seed, "totals": totals(rows), "largest": f"{largest:g}", "smaller": smaller}
    lines = [HEADING.format(**heading)]
    for row in rows:
        entry, result = row.entry + (" (shrunk)" if row.shrunk else ""), f"`{row.result}`" if row.result else ""
        cells = (entry, f"{row.megabytes:.1f}", row.target, row.outcome, result)
        rest = (row.exporter, row.told, f"{row.seconds:.0f}")
        lines.append("| " + " | ".join(cell(text) for text in (*cells, *rest)) + " |")
    return "\n".join(lines) + "\n"


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entry", nargs="*", help="entries to take instead of a draw")
    parser.add_argument("--count", type=int, default=30, help="entries to convert")
    parser.add_argument("--seed", type=int, default=0, help="of the draw and of the weights")
    parser.add_argument("--largest", type=float, default=500, metavar="MB", help="weights of an entry")
    parser.add_argument("--shrink", action="store_true", help="few and narrow layers for transformers' entries")
    parser.add_argument("--seconds", type=float, default=900, help="of each process")
    parser.add_argument("--memory", type=float, default=8, metavar="GB", help="of each process")
    parser.add_argument("--output", type=Path, help="where the table goes, such as docs/registry-sample.md")
    parser.add_argument("--json", type=Path, help="the rows as JSON; those of an earlier run are not made again")
    return parser.parse_args()


def _earlier(file: Path | None, seed: int, largest: float) -> list[Row]:
    """Rows of an earlier run of the same seed, without entries that were too large for it alone."""
    if file is None or not file.exists():
        return []
    kept = json.loads(file.read_text())
    if kept["seed"] != seed:
        raise SystemExit(f"{file} is of seed {kept['seed']}.")
    rows = [Row(**row) for row in kept["rows"]]
    return [row for row in rows if row.outcome != LARGE or row.megabytes > largest]


def main() -> int:
    arguments = _parsed()
    bounds = Bounds(arguments.seconds, int(arguments.memory * 1e9), arguments.largest)
    registry = load_registry()
    registry.names()
    rows = _earlier(arguments.json, arguments.seed, arguments.largest)
    tried = 0
    for name in arguments.entry or draw(registry, arguments.seed):
        if tried >= arguments.count and not arguments.entry:
            break
        known = {row.target: row for row in rows if row.entry == name}
        if not (BOTH in known or known.keys() >= set(TARGETS)):
            options = apart(bounds, shrunk, registry, name) if arguments.shrink else {}
            options = {} if options.keys() & {"died", "code"} else options
            for row in rows_of(registry, name, options, seed=arguments.seed, bounds=bounds, known=known):
                rows.append(row)
                known[row.target] = row
                print(f"{row.outcome:13} {row.entry:50} {row.megabytes:6.1f} MB {row.target:11} {row.result:16} "
                      f"{row.exporter:12} {row.seconds:6.1f} s  {cell(row.told, 400)}", flush=True)  # fmt: skip
                if arguments.json is not None:
                    kept = {"seed": arguments.seed, "rows": [asdict(row) for row in rows]}
                    arguments.json.write_text(json.dumps(kept, indent=1))
        tried += BOTH not in known
    print(totals(rows))
    if arguments.output is not None:
        arguments.output.write_text(table(rows, arguments.seed, arguments.largest))
    return int(any(row.outcome in ("WRONG", "CRASH") for row in rows))


if __name__ == "__main__":
    sys.exit(main())
