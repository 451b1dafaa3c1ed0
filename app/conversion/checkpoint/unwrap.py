"""Finding the state dict in what a checkpoint file holds.

A state dict is a mapping from names to tensors. Training scripts wrap it: {"epoch", "model", "optim", "loss"},
{"state_dict": ...}, {"params": ..., "params_ema": ...}.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from app.domain.errors import AmbiguousCheckpoint, NoStateDict

MAX_DEPTH = 16

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


@dataclass(frozen=True)
class Found:
    """A state dict and where it was: ``path`` leads from the top of the file to it."""

    path: tuple[str, ...]
    tensors: dict[str, torch.Tensor]
    versions: Mapping[str, Any]
    """Module versions by module path, from the state dict's ``_metadata``; empty when there are none."""
    skipped: tuple[str, ...]
    """Keys of the mapping whose values are not tensors."""


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
    """All state dicts, one per set of tensors: the same dict saved under two keys is one candidate."""
    seen: dict[tuple[tuple[str, int, torch.Size], ...], Found] = {}
    for found in _walk(loaded, (), set()):
        seen.setdefault(tuple((name, _address(t), t.shape) for name, t in found.tensors.items()), found)
    return list(seen.values())


def _address(tensor: torch.Tensor) -> int:
    """Where the values are; sparse tensors have no one place and are refused later by name."""
    return tensor.data_ptr() if tensor.layout == torch.strided else id(tensor)


def _walk(node: object, path: tuple[str, ...], above: set[int]) -> Iterator[Found]:
    if not isinstance(node, Mapping) or id(node) in above or len(path) > MAX_DEPTH or _is_optimizer_state(node):
        return
    if found := _state_dict(node, path, mixed=False):
        yield found
        return
    above.add(id(node))
    nested = [
        found
        for key, value in node.items()
        if isinstance(key, str) and not key.lower().startswith(_NOT_WEIGHTS)
        for found in _walk(value, (*path, key), above)
    ]
    if not nested and path and (mixed := _state_dict(node, path, mixed=True)):
        nested = [mixed]
    yield from nested


def _is_optimizer_state(node: Mapping[Any, Any]) -> bool:
    """torch.optim.Optimizer.state_dict() is {"state": ..., "param_groups": ...}."""
    return "param_groups" in node and "state" in node


def _state_dict(node: Mapping[Any, Any], path: tuple[str, ...], *, mixed: bool) -> Found | None:
    """``node`` as a state dict; None if it is none. ``mixed`` allows values that are not tensors beside the tensors."""
    tensors = {
        key: value.detach() for key, value in node.items() if isinstance(value, torch.Tensor) and isinstance(key, str)
    }
    skipped = [str(key) for key in node if not isinstance(key, str) or key not in tensors]
    if not tensors or (not mixed and any(not name.endswith("_extra_state") for name in skipped)):
        return None
    versions = getattr(node, "_metadata", None)
    return Found(path, tensors, versions if isinstance(versions, Mapping) else {}, tuple(skipped))


def _at(loaded: object, dotted: str) -> Found:
    for path, node in _resolve(loaded, dotted, ()):
        if isinstance(node, Mapping) and (found := _state_dict(node, path, mixed=True)):
            return found
    present = [_dotted(found.path) for found in _distinct(loaded)]
    raise NoStateDict(
        f"There is no state dict at checkpoint_key {dotted!r}.",
        hint=f"State dicts are at {', '.join(repr(path) for path in present)}." if present else None,
        candidates=present,
    )


def _resolve(node: object, dotted: str, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], object]]:
    """Every reading of a dotted path, since keys may hold dots themselves."""
    if not isinstance(node, Mapping) or len(path) > MAX_DEPTH:
        return
    if dotted in node:
        yield (*path, dotted), node[dotted]
    for position, character in enumerate(dotted):
        if character == "." and dotted[:position] in node:
            head = dotted[:position]
            yield from _resolve(node[head], dotted[position + 1 :], (*path, head))


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(path)


def _what_instead(loaded: object) -> str:
    if isinstance(loaded, Mapping):
        if not loaded:
            return "The file holds an empty dict."
        if any(isinstance(value, torch.Tensor) for value in loaded.values()):
            kinds = ", ".join(sorted({type(key).__name__ for key in loaded}))
            return f"The file holds tensors under keys of type {kinds}; parameter names are strings."
        return f"The file holds a dict without tensors (keys: {', '.join(str(key)[:40] for key in list(loaded)[:10])})."
    if isinstance(loaded, torch.Tensor):
        return "The file holds one tensor without a name."
    if isinstance(loaded, (list, tuple)):
        return f"The file holds a {type(loaded).__name__} of {len(loaded)} items; their names are needed."
    return f"The file holds an object of type {type(loaded).__name__}."
