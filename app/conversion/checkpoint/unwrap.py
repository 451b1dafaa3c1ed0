"""Finding the state dict in what a checkpoint file holds.

A state dict is a mapping from names to tensors. Training scripts wrap it: {"epoch", "model", "optim", "loss"},
{"state_dict": ...}, {"params": ..., "params_ema": ...}.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from app.conversion.checkpoint.names import MAX_NAME, shown
from app.conversion.checkpoint.pickle_values import Made, Ordered, OtherKey
from app.conversion.checkpoint.stored_tensors import Stored, TensorView
from app.domain.errors import AmbiguousCheckpoint, NoStateDict

MAX_DEPTH = 16
MAX_CANDIDATES = 1_000
"""State dicts of which a file's may be chosen: those beyond are not looked for."""
MAX_SKIPPED = 10
"""Keys of a state dict that are told for having no tensor."""
MAX_READINGS = 1_000_000
"""Places of a dotted path at which a key may end that are tried; 200 characters through eight dicts have 1,600."""

# Entries of training checkpoints that hold tensors which are not weights of the model.
_NOT_WEIGHTS = (
    "optim",
    "opt_state",
    "last_optimizer",
    "scheduler",
    "lr_sched",
    "scaler",
    "grad_scaler",
    "rng",
    "loops",
    "callbacks",
)
_LONGEST_NOT_WEIGHTS = max(map(len, _NOT_WEIGHTS))


@dataclass(frozen=True)
class Found:
    """A state dict and where it was: ``path`` leads from the top of the file to it."""

    path: tuple[str, ...]
    tensors: dict[str, Stored]
    skipped: tuple[str, ...]
    """The first keys of the mapping whose values are not tensors."""
    metadata: object
    """What torch.nn.Module.state_dict() leaves in ``_metadata``: {"layer1.0.bn1": {"version": 2}, ...}."""

    @property
    def versions(self) -> dict[str, dict[str, int]]:
        """Module versions by module path, from the state dict's ``_metadata``; empty when there are none."""
        return {
            module: {"version": entry["version"]}
            for module, entry in (self.metadata.items() if isinstance(self.metadata, dict) else ())
            if isinstance(module, str) and isinstance(entry, dict) and type(entry.get("version")) is int
        }


def unwrap(loaded: object, checkpoint_key: str = "auto") -> tuple[Found, tuple[str, ...]]:
    """The state dict in ``loaded`` and the dotted paths of all candidates.

    ``checkpoint_key`` is "auto" or a dotted path ("" is the top). Raises NoStateDict, or AmbiguousCheckpoint naming
    the candidates.
    """
    if checkpoint_key not in ("auto", ""):
        chosen = _at(loaded, checkpoint_key)
        return chosen, tuple(_dotted(found.path) for found in _distinct(loaded)) or (checkpoint_key,)
    if checkpoint_key == "" and isinstance(loaded, Mapping) and (top := _state_dict(loaded, (), mixed=True)):
        return top, ("",)
    candidates = _distinct(loaded)
    if not candidates and isinstance(loaded, Mapping) and (mixed := _state_dict(loaded, (), mixed=True)):
        candidates = [mixed]
    paths = tuple(_dotted(found.path) for found in candidates)
    if not candidates:
        raise NoStateDict(_what_instead(loaded), hint="Save model.state_dict(), alone or under a key such as 'model'.")
    if len(candidates) > 1:
        raise AmbiguousCheckpoint(
            f"State dicts are at {', '.join(repr(path) for path in paths[:10])}.",
            hint=f"Say which one with the option checkpoint_key, such as checkpoint_key={paths[0]!r}.",
            candidates=paths,
        )
    return candidates[0], paths


def _distinct(loaded: object) -> list[Found]:
    """The state dicts, one per set of tensors: the same dict saved under two keys is one candidate."""
    walk = _Walk()
    walk.look_into(loaded, ())
    return list(walk.found.values())


class _Walk:
    """Looks into each mapping once, under however many keys it is, and for the place of each tensor once."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, ...], Found] = {}
        """By names and places of the tensors."""
        self._holds: dict[int, bool] = {}
        """Of each mapping, by its id, whether a state dict is in it; False while it is looked into."""
        self._places: dict[int, str] = {}

    def look_into(self, node: object, path: tuple[str, ...]) -> bool:
        """Whether a state dict is in ``node``."""
        if not isinstance(node, Mapping) or len(path) > MAX_DEPTH or len(self.found) >= MAX_CANDIDATES:
            return False
        if id(node) not in self._holds:
            self._holds[id(node)] = False
            self._holds[id(node)] = not _is_optimizer_state(node) and self._find(node, path)
        return self._holds[id(node)]

    def _find(self, node: Mapping[Any, Any], path: tuple[str, ...]) -> bool:
        found = _state_dict(node, path, mixed=False)
        if found is None:
            inside = [
                self.look_into(value, (*path, key))
                for key, value in node.items()
                if isinstance(value, Mapping) and isinstance(key, str) and not is_no_weight(key)
            ]
            if any(inside):
                return True
            found = _state_dict(node, path, mixed=True) if path else None
        if found is not None:
            places = (part for name, tensor in found.tensors.items() for part in (name, self._place(tensor)))
            self.found.setdefault(tuple(places), found)
        return found is not None

    def _place(self, tensor: Stored) -> str:
        if id(tensor) not in self._places:
            self._places[id(tensor)] = tensor.place if isinstance(tensor, TensorView) else str(id(tensor))
        return self._places[id(tensor)]


def is_no_weight(key: str) -> bool:
    """Whether an entry of a training checkpoint holds tensors of something else than the model, by its name."""
    return key[:_LONGEST_NOT_WEIGHTS].lower().startswith(_NOT_WEIGHTS)


def _is_optimizer_state(node: Mapping[Any, Any]) -> bool:
    """torch.optim.Optimizer.state_dict() is {"state": ..., "param_groups": ...}."""
    return "param_groups" in node and "state" in node


def _state_dict(node: Mapping[Any, Any], path: tuple[str, ...], *, mixed: bool) -> Found | None:
    """``node`` as a state dict; None if it is none. ``mixed`` allows values that are not tensors beside the tensors."""
    tensors = {key: value for key, value in node.items() if isinstance(value, Stored) and isinstance(key, str)}
    if not tensors:
        return None
    others = [key for key in node if key not in tensors]
    if not mixed and any(not (isinstance(key, str) and key.endswith("_extra_state")) for key in others):
        return None
    state = node.state if isinstance(node, Ordered) else None
    metadata = state.get("_metadata") if isinstance(state, dict) else None
    return Found(path, tensors, tuple(shown(str(key)) for key in others[:MAX_SKIPPED]), metadata)


def _at(loaded: object, dotted: str) -> Found:
    tried: set[int] = set()
    for path, node in _resolve(loaded, dotted):
        if id(node) in tried or not isinstance(node, Mapping):
            continue
        tried.add(id(node))
        if found := _state_dict(node, path, mixed=True):
            return found
    present = [_dotted(found.path) for found in _distinct(loaded)]
    raise NoStateDict(
        f"There is no state dict at checkpoint_key {shown(dotted)!r}.",
        hint=f"State dicts are at {', '.join(repr(path) for path in present)}." if present else None,
        candidates=present,
    )


def _resolve(loaded: object, dotted: str) -> Iterator[tuple[tuple[str, ...], object]]:
    """Every reading of a dotted path, since keys may hold dots themselves; each place is reached once.

    There may be as many readings as dicts times dots, each with as many keys to try: so what is tried is counted.
    """
    seen: set[tuple[int, int]] = set()
    ahead: list[tuple[object, int, tuple[str, ...]]] = [(loaded, 0, ())]
    left = MAX_READINGS
    while ahead and left > 0:
        node, start, path = ahead.pop()
        if not isinstance(node, Mapping) or len(path) > MAX_DEPTH or (id(node), start) in seen:
            continue
        seen.add((id(node), start))
        if dotted[start:] in node:
            yield (*path, dotted[start:]), node[dotted[start:]]
        end = min(start + MAX_NAME, len(dotted))
        left -= 1 + end - start
        heads = (dotted[start:dot] for dot in range(start, end) if dotted[dot] == ".")
        ahead.extend((node[head], start + len(head) + 1, (*path, head)) for head in heads if head in node)


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(path)


def _what_instead(loaded: object) -> str:
    if isinstance(loaded, Mapping):
        return _what_dict(loaded)
    if isinstance(loaded, Stored):
        return "The file holds one tensor without a name."
    if isinstance(loaded, (list, tuple)):
        return f"The file holds a {type(loaded).__name__} of {len(loaded)} items; their names are needed."
    return f"The file holds an object of type {_type(loaded)}."


def _what_dict(loaded: Mapping[Any, Any]) -> str:
    if not loaded:
        return "The file holds an empty dict."
    if any(isinstance(value, Stored) for value in loaded.values()):
        kinds = ", ".join(sorted({_type(key.value if isinstance(key, OtherKey) else key) for key in loaded}))
        return f"The file holds tensors under keys of type {kinds}; parameter names are strings."
    if any(isinstance(value, Made) and value.by.endswith("multiarray._reconstruct") for value in loaded.values()):
        return "The file holds NumPy arrays; turn them into tensors with torch.from_numpy and save them again."
    keys = ", ".join(shown(str(key))[:40] for key in list(loaded)[:10])
    return f"The file holds a dict without tensors (keys: {keys})."


def _type(value: object) -> str:
    return shown(value.by) if isinstance(value, Made) else type(value).__name__
