"""Tied weights: one parameter or buffer of a module under several names."""

from collections.abc import Mapping

import torch

from app.domain.errors import KeyMismatch


def fill_twins(tensors: Mapping[str, torch.Tensor], groups: list[tuple[str, ...]]) -> dict[str, torch.Tensor]:
    """``tensors`` with every group complete, since files such as safetensors keep one of a tied pair.

    Raises KeyMismatch if the file holds different values for names that the architecture ties.
    """
    filled = dict(tensors)
    for group in groups:
        present = [name for name in group if name in tensors]
        for name in present[1:]:
            if not _same(tensors[present[0]], tensors[name]):
                raise KeyMismatch(
                    f"The architecture ties {present[0]!r} and {name!r}, but the checkpoint holds different values.",
                    hint="Build the architecture untied (such as tie_word_embeddings=false), or save the model again.",
                    untied=[present[0], name],
                )
        if present:
            filled.update(dict.fromkeys(group, tensors[present[0]]))
    return filled


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.data_ptr() == other.data_ptr() and one.stride() == other.stride():
        return True
    return torch.equal(one, other)
