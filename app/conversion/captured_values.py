"""Numbers that a capture took from weights by way of Python: a graph holds them and does not say where they are from.

Only captures that had values at hand can hold such (templates/reuse.py tells which). The same capture of a freshly
built module, which has never seen the upload, gives every constant that belongs to the architecture.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from app.domain.errors import ExportFailed, RecastError
from app.targets.request import ExportRequest
from app.targets.templating.tensor_bytes import dtype_name, tensor_bytes
from app.targets.writer import Writer


def refuse_values_of_weights(
    constants: Mapping[str, Tensor],
    writer: Writer[Any, Any],
    request: ExportRequest,
    capture: Callable[[ExportRequest], Any],
    fresh: nn.Module,
) -> None:
    """Raise ExportFailed unless all captured ``constants`` are those of the ``fresh`` module, byte for byte.

    A single number may be: whatever it was made of, its weights have places of their own in the ledger.
    """
    telling = {name: tensor for name, tensor in constants.items() if tensor.numel() > 1}
    if not telling:
        return
    try:
        again = capture(replace(request, module=fresh))
    except RecastError:
        known = set()
    else:
        known = {_bits(tensor) for tensor in writer.constants(again, fresh).values()}
    strange = [f"{name} {list(tensor.shape)}" for name, tensor in telling.items() if _bits(tensor) not in known]
    if strange:
        raise ExportFailed(
            f"The captured graph holds numbers that were made of these weights: {', '.join(strange[:5])}.",
            stage="export",
            hint="Compute with tensors instead of numpy arrays and lists of numbers in the forward pass.",
        )


def _bits(tensor: Tensor) -> tuple[str, bytes]:
    return dtype_name(tensor.dtype), bytes(tensor_bytes(tensor))
