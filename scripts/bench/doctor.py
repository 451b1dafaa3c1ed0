"""Random registry entries, half of them with another head, told from their keys and shapes alone.

right: the doctor's first proposal is the entry, with options under which every tensor fits. equal: it is another one
of the very same keys and shapes, and the entry is among those that are told with it. wrong: neither. Milliseconds are
those of the ranking, of all registered architectures each time, in processor time of its one thread.
"""

import argparse
import json
import random
import statistics
import sys
import time
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from app.architectures.registry import Registry, load_registry
from app.conversion.key_repair import Shapes
from app.conversion.proposals import installed_index
from app.domain.errors import RecastError

HEADS = ("num_classes", "num_labels", "vocab_size")
"""Options that say how large a head is, the first that an architecture has."""
CLASSIFIERS = ("sequence-classification", "image-classification", "audio-classification", "token-classification")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    told = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    registry, index, draw = load_registry(), installed_index(), random.Random(told.seed)
    names = list(registry.names())
    index.rank({"conv1.weight": (64, 3, 7, 7)})  # what the first request of a process pays
    counts: Counter[str] = Counter()
    milliseconds: list[float] = []
    while sum(counts.values()) < told.entries:
        name, resized = draw.choice(names), sum(counts.values()) % 2 == 1
        options = _resized(registry, name, draw) if resized else {}
        shapes = None if options is None else _shapes(registry, name, options)
        if shapes is None or options is None:
            continue
        started = time.process_time()
        ranked = index.rank(shapes)
        milliseconds.append(1000 * (time.process_time() - started))
        verdict = "wrong"
        if ranked and ranked[0].exact:
            exact = [match.architecture for match in index.rank(shapes, most=1000) if match.exact]
            verdict = "right" if ranked[0].architecture == name else "equal" if name in exact else "wrong"
        counts[verdict] += 1
        if verdict == "wrong":
            said = ranked[0].sentence() if ranked else "nothing"
            print(f"  {name} {json.dumps(options)}: {said}", flush=True)
    return _tell(counts, milliseconds, told.json)


def _resized(registry: Registry, name: str, draw: random.Random) -> dict[str, Any] | None:
    """Options that give the architecture another head; None where it has none to resize."""
    schema = registry.describe(name).options_schema.get("properties", {})
    tasks = [task for task in schema.get("task", {}).get("enum", ()) if task in CLASSIFIERS]
    if tasks:
        return {"task": draw.choice(tasks), "num_labels": draw.randint(3, 500)}
    head = next((option for option in HEADS if option in schema and option != "num_labels"), None)
    if head is None or schema[head].get("default") in (0, None):
        return None
    return {head: draw.randint(3, 2000)}


def _shapes(registry: Registry, name: str, options: Mapping[str, Any]) -> Shapes | None:
    try:
        state = registry.outline(name, options).state_dict()
    except RecastError:
        return None
    return {key: tuple(value.shape) for key, value in state.items() if isinstance(value, torch.Tensor)}


def _tell(counts: Counter[str], milliseconds: list[float], path: Path | None) -> int:
    entries = sum(counts.values())
    named = (counts["right"] + counts["equal"]) / entries
    slowest = sorted(milliseconds)
    figures = {
        **{verdict: counts[verdict] for verdict in ("right", "equal", "wrong")},
        "named": round(named, 3),
        "p50_ms": round(statistics.median(slowest), 1),
        "p99_ms": round(slowest[min(len(slowest) - 1, int(0.99 * len(slowest)))], 1),
        "max_ms": round(slowest[-1], 1),
    }
    print("| entries | right | equal | wrong | named | p50 ms | p99 ms | max ms |")
    print("|" + "---|" * 8)
    print(f"| {entries} | " + " | ".join(str(figure) for figure in figures.values()) + " |")
    if path is not None:
        path.write_text(json.dumps(figures, indent=2))
    return 0 if named >= 0.95 else 1


if __name__ == "__main__":
    sys.exit(main())
