"""Traced forwards of the architecture on inputs of its signature."""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from app.architectures.calling import call
from app.architectures.sample import sample_inputs
from app.conversion.verification.ledger.forward import EagerTrace, Offer
from app.conversion.verification.ledger.trace import trace
from app.domain.architecture import Signature

_SEED = 20_240_229
_SCALES = (1.0, 0.05, 8.0)
"""Scales of the inputs on which a tensor must go without influence before it counts as unused. A template leaves out
what its own first, full verification found unused; there one input confirms it."""
SMALL = {"batch": 1}

Run = Callable[[Offer], EagerTrace]


def runs(module: nn.Module, signature: Signature) -> Iterator[Run]:
    """Traced forwards, one for each scale of inputs; the first at the sizes that were exported with."""
    yield traced_run(module, signature, {})
    for scale in _SCALES[1:]:
        yield traced_run(module, signature, SMALL, scale)


def traced_run(module: nn.Module, signature: Signature, sizes: Mapping[str, int], scale: float = _SCALES[0]) -> Run:
    """A forward to be traced, on inputs of the signature."""
    admissible = {axis.name for axis in signature.axes if axis.minimum <= 1 and axis.multiple_of == 1}
    sizes = {name: size for name, size in sizes.items() if name in admissible}
    inputs = sample_inputs(signature, sizes, torch.Generator().manual_seed(_SEED), scale=scale)
    module.eval()  # modules that cache what they made of their weights forget it here
    return traced_on(module, signature, inputs)


def traced_on(module: nn.Module, signature: Signature, inputs: Mapping[str, Tensor]) -> Run:
    """A forward to be traced, on these inputs."""
    placed = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
    return lambda offer: trace(placed, inputs, lambda: call(module, signature, inputs), offer)
