"""Taking wrapper prefixes off uploaded keys: ``module.`` (DataParallel), ``_orig_mod.`` (compile), ``model.``.

A whole leading segment is taken off every key, and only if the keys then stand in a bijection, by name and shape, with
those of the architecture. Nothing is guessed and nothing is renamed in part.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from app.domain.checkpoint import Repair

WRAPPERS = ("module.", "_orig_mod.", "model.")


@dataclass(frozen=True)
class Expected:
    """Shapes that the architecture's state dict has, by key, and the keys that a checkpoint may omit."""

    shapes: Mapping[str, torch.Size]
    optional: frozenset[str]

    def fits(self, tensors: Mapping[str, torch.Tensor]) -> bool:
        """Whether every tensor has a place of its shape and every place that needs a tensor has one."""
        return all(self.shapes.get(name) == tensor.shape for name, tensor in tensors.items()) and all(
            name in tensors or name in self.optional for name in self.shapes
        )


def repair_keys(
    tensors: dict[str, torch.Tensor], expected: Expected, *, prefix: str | None, strict: bool
) -> tuple[dict[str, torch.Tensor], Repair | None]:
    """``tensors`` under the architecture's names, and what was taken off; unchanged if nothing proves to fit.

    With ``strict`` off no bijection can be asked for. Then a prefix that the client named is taken off the keys that
    have it, and a wrapper that every key has is taken off if no key fits as it is and some do without it.
    """
    if expected.fits(tensors):
        return tensors, None
    for candidate in (prefix,) if prefix is not None else _stacks(tensors):
        stripped = strip(tensors, candidate, everywhere=strict or prefix is None)
        if stripped is not None and (
            expected.fits(stripped) or (not strict and _helps(tensors, stripped, expected, prefix))
        ):
            return stripped, _report(tensors, candidate)
    return tensors, None


def strip(
    tensors: Mapping[str, torch.Tensor], prefix: str, *, everywhere: bool = True
) -> dict[str, torch.Tensor] | None:
    """``tensors`` without ``prefix``; None if a key does not have it (``everywhere``) or two keys would become one."""
    if not prefix or (everywhere and not all(name.startswith(prefix) for name in tensors)):
        return None
    stripped = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return stripped if len(stripped) == len(tensors) and "" not in stripped else None


def common_segment(tensors: Mapping[str, torch.Tensor]) -> str | None:
    """The first segment, with its dot, if all keys share it."""
    heads = {name.partition(".")[0] + "." for name in tensors if "." in name}
    return heads.pop() if len(heads) == 1 and all("." in name for name in tensors) else None


def _stacks(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Wrapper prefixes that all keys share: "module.", then "module._orig_mod.", and so on."""
    stacks: list[str] = []
    rest: dict[str, torch.Tensor] | None = dict(tensors)
    while rest and (segment := common_segment(rest)) in WRAPPERS:
        stacks.append((stacks[-1] if stacks else "") + str(segment))
        rest = strip(rest, str(segment))
    return stacks


def _helps(
    before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor], expected: Expected, prefix: str | None
) -> bool:
    if prefix is not None:
        return True
    return not any(name in expected.shapes for name in before) and any(name in expected.shapes for name in after)


def _report(tensors: Mapping[str, torch.Tensor], prefix: str) -> Repair:
    stripped = [name for name in tensors if name.startswith(prefix)]
    return Repair(
        stripped_prefix=prefix,
        keys=len(stripped),
        examples=tuple((name, name.removeprefix(prefix)) for name in stripped[:3]),
    )
