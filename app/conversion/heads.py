"""Which recipe a file may be of whose tensors fit a registered architecture but for a head of its own.

Told from keys and shapes alone. Layers without weights leave no trace in a file: between two layers with weights ReLU
is assumed, elsewhere Dropout, and every assumption is told, for whoever trained the model to confirm.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from app.conversion.key_repair import LEADING, Shapes
from app.conversion.matching import Match

LEAST_FITTING = 0.5
"""Of the file's tensors."""
MOST_GAP = 8
"""Layers without weights in a row."""
CONVOLUTIONS = {3: "Conv1d", 4: "Conv2d", 5: "Conv3d"}
SEVERAL_OUTPUTS = "transformers/"
KNOWN = frozenset({"weight", "bias", "running_mean", "running_var", "num_batches_tracked"})


@dataclass(frozen=True)
class HeadProposal:
    """A recipe as POST /v1/architectures takes it, and what of it no file can tell."""

    recipe: dict[str, Any]
    assumed: tuple[str, ...]
    given_up: int
    """Tensors of the base that it is without."""

    def sentence(self) -> str:
        """What the file seems to be."""
        places = [f"another {path}" for path, layers in self.recipe.get("replace", {}).items() if layers]
        heads = [f"a head {name}" for name in self.recipe.get("heads", {})]
        without = [f"no {path}" for path, layers in self.recipe.get("replace", {}).items() if not layers]
        return f"{self.recipe['base']} with {' and '.join([*places, *heads, *without])}: every tensor fits"

    def advice(self) -> str:
        """The sentence, and how to go on."""
        told = json.dumps(self.recipe, separators=(",", ":"))
        unsure = f" Not in the file, so confirm: {'; '.join(self.assumed)}." if self.assumed else ""
        return (
            f"{self.sentence()}. Register it as a recipe, POST /v1/architectures {told}, and convert by its name."
            f"{unsure}"
        )


def head_proposal(matches: Iterable[Match], shapes: Shapes) -> HeadProposal | None:
    """The recipe on one of the matched architectures in which every tensor of the file has a place; None without one.

    Of several that which keeps most of its base, of equals the first.
    """
    found = [proposal for match in matches if (proposal := _proposal(match, shapes)) is not None]
    return min(found, key=lambda proposal: proposal.given_up, default=None)


def _proposal(match: Match, shapes: Shapes) -> HeadProposal | None:
    if match.exact or match.fitting < LEAST_FITTING * len(shapes):
        return None
    named = {name: shapes[key] for key, name in match.reading.names(shapes).items()}
    prefix, own = _outside(match, shapes)
    lost = [*match.missing, *(words.partition(": ")[0] for words in match.mismatched)]
    path = _common([*lost, *match.unexpected]) if lost else ""
    if not path:  # heads beside the base's own parts
        own |= {name: named[name] for name in match.unexpected}
        path = _common(lost)
    fitting = {name.partition(".")[0] for name in named.keys() - set(lost) - set(match.unexpected)}
    heads = _by_first(own)
    if (lost and not path) or (not prefix and fitting & heads.keys()):
        return None
    notes: list[str] = []
    replaced = {path: _layers(_below(named, path), path, notes)} if path else {}
    made = {name: _layers(tensors, name, notes) for name, tensors in heads.items()}
    if not (replaced or made) or None in (*replaced.values(), *made.values()):
        return None
    if made and match.architecture.startswith(SEVERAL_OUTPUTS):
        notes.append("heads are given the first output of the base")
    bare = re.sub(r"[^a-z0-9_-]", "-", match.architecture.rpartition("/")[2].lower())
    members = {"options": dict(match.options), "prefix": prefix, "replace": replaced, "heads": made}
    told = {name: member for name, member in members.items() if member}
    return HeadProposal({"name": f"own/{bare}", "base": match.architecture, **told}, tuple(notes), len(lost))


def _outside(match: Match, shapes: Shapes) -> tuple[str, dict[str, tuple[int, ...]]]:
    """Where the base stands within the module, and the tensors beside it, without what wrappers add to all."""
    wrapper, prefix = "", match.reading.prefix
    outside = [key for key in shapes if match.reading.name(key) is None]
    while (first := f"{prefix.partition('.')[0]}.")[:-1] in LEADING:
        if not all(key.startswith(wrapper + first) for key in outside):
            break
        wrapper, prefix = wrapper + first, prefix[len(first) :]
    return prefix.rstrip("."), {key[len(wrapper) :]: shapes[key] for key in outside}


def _common(keys: list[str]) -> str:
    """The longest path of a part that all these tensors are of; "" for the whole module."""
    parts = [key.split(".")[:-1] for key in keys]
    common = []
    for segments in zip(*parts, strict=False):
        if len(set(segments)) > 1:
            break
        common.append(segments[0])
    return ".".join(common)


def _below(named: Shapes, path: str) -> dict[str, tuple[int, ...]]:
    return {name[len(path) + 1 :]: tuple(shape) for name, shape in named.items() if name.startswith(f"{path}.")}


def _by_first(tensors: Shapes) -> dict[str, dict[str, tuple[int, ...]]]:
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in tensors.items():
        first, _, rest = name.partition(".")
        found.setdefault(first, {})[rest] = tuple(shape)
    return found


def _layers(tensors: Shapes, where: str, notes: list[str]) -> Any:
    """Layers that have these tensors; [] for none, None for what no layers of a recipe have."""
    if not tensors:
        return []
    if all("." not in name for name in tensors):
        return _layer(tensors, where, notes)
    parts = _by_first(tensors)
    if any("" in part for part in parts.values()):
        return None
    found: list[Any] = []
    for name, part in sorted(parts.items(), key=lambda item: int(item[0]) if item[0].isdigit() else 0):
        layer = _layers(part, f"{where}.{name}", notes)
        if layer is None:
            return None
        if name.isdigit():
            found += list(_gap(int(name) - len(found), where, found, notes))
            if len(found) != int(name):
                return None
            found.append(layer)
        else:
            found += list(_gap(1, where, found, notes)) if found else []
            found.append({**layer, "name": name} if isinstance(layer, dict) else {"layers": layer, "name": name})
    return found


def _gap(length: int, where: str, before: list[Any], notes: list[str]) -> Iterator[Any]:
    """Layers without weights: what stands most often in such a place."""
    for at in range(min(max(length, 0), MOST_GAP)):
        layer = "ReLU" if before and at == 0 else "Dropout"
        notes.append(f"{where}.{len(before) + at} is {layer}")
        yield layer


def _layer(tensors: Shapes, where: str, notes: list[str]) -> Any:
    weight, bias = tensors.get("weight"), "bias" in tensors
    if not tensors.keys() <= KNOWN or (weight is None and "running_mean" not in tensors):
        return None
    if "running_mean" in tensors:
        notes.append(f"{where} is BatchNorm1d and not 2d")
        return {"BatchNorm1d": {} if weight else {"affine": False}}
    assert weight is not None
    if len(weight) == 1:
        notes.append(f"{where} is LayerNorm and not GroupNorm")
        return {"LayerNorm": {} if bias else {"bias": False}}
    without = {} if bias else {"bias": False}
    if len(weight) == 2:
        return {"Linear": {"out_features": weight[0], **without}}
    kind = CONVOLUTIONS.get(len(weight))
    if kind is None:
        return None
    if any(size > 1 for size in weight[2:]):
        notes.append(f"{where} is padded to keep its size, with stride 1")
    padding = {"padding": [size // 2 for size in weight[2:]]} if any(size > 1 for size in weight[2:]) else {}
    return {kind: {"out_channels": weight[0], "kernel_size": list(weight[2:]), **padding, **without}}
