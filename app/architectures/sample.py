"""Drawing inputs from the distributions that a signature declares."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from app.domain.architecture import InputSpec, Integers, Mask, Normal, Signature, Uniform


def sample_inputs(
    signature: Signature, sizes: Mapping[str, int], generator: torch.Generator, *, scale: float = 1.0
) -> dict[str, Tensor]:
    """One value for every input, by name.

    ``sizes`` gives the size of symbolic axes; an axis not in it has its sample size. ``scale`` multiplies values drawn
    from normal and uniform distributions. Integers hold their lowest and highest value at least once where two elements
    have room; masks have 1 to all of the last axis set, and at least one row with padding where the shape permits.
    """
    return {
        spec.name: _draw(spec, concrete_shape(signature, spec, sizes), generator, scale) for spec in signature.inputs
    }


def concrete_shape(signature: Signature, spec: InputSpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The input's shape with every symbolic axis replaced by its size."""
    return tuple(
        size if isinstance(size, int) else sizes[size] if size in sizes else signature.axis(size).sample
        for size in spec.shape
    )


def _draw(spec: InputSpec, shape: tuple[int, ...], generator: torch.Generator, scale: float) -> Tensor:
    dtype = getattr(torch, spec.dtype)
    match spec.distribution:
        case Normal(mean=mean, std=std):
            return ((torch.randn(shape, generator=generator) * std + mean) * scale).to(dtype)
        case Uniform(low=low, high=high):
            return ((torch.rand(shape, generator=generator) * (high - low) + low) * scale).to(dtype)
        case Integers(low=low, high=high):
            return _integers(shape, low, high, generator).to(dtype)
        case Mask():
            return _mask(shape, generator).to(dtype)


def _integers(shape: tuple[int, ...], low: int, high: int, generator: torch.Generator) -> Tensor:
    values = torch.randint(low, high + 1, shape, generator=generator)
    if values.numel() >= 2:
        places = torch.randperm(values.numel(), generator=generator)[:2]
        values.view(-1)[places] = torch.tensor([low, high])
    return values


def _mask(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    length = shape[-1] if shape else 1
    rows = math.prod(shape[:-1])
    if length == 0 or rows == 0:
        return torch.zeros(shape)
    lengths = torch.randint(1, length + 1, (rows,), generator=generator)
    if rows >= 2:
        lengths[0], lengths[-1] = length, max(1, length // 2)
    return (torch.arange(length) < lengths[:, None]).view(shape)
