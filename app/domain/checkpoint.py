"""A checkpoint: an uploaded weights file, addressed by sha256, and what is inside it."""

from typing import Literal

from app.domain.base import Value
from app.domain.errors import Canceled, ChildCrashed, OutOfMemory, TimedOut, WorkerLost

CheckpointFormat = Literal["torch-zip", "torch-legacy", "safetensors", "sharded", "distributed", "torchscript", "pt2"]

READING_CUT_SHORT = frozenset(error.code for error in (TimedOut, WorkerLost, ChildCrashed, OutOfMemory, Canceled))
"""Codes of problems that say nothing of the file: reading it did not come to its end."""


class TensorInfo(Value):
    """One tensor of a state dict. ``dtype`` is torch's name without its prefix; ``bytes`` is numel × itemsize."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    trainable: bool | None = None
    """True for a parameter, False for a buffer; None while no architecture has said which it is."""
    tied_to: str | None = None
    """The first name under which the same storage is already listed."""


class Repair(Value):
    """Segments taken out of keys, because that and only that gives the architecture's names and shapes."""

    stripped_prefix: str
    """Leading segments, such as "module."; keys without them are left out. Empty: none."""
    removed_segments: tuple[str, ...] = ()
    """Segments of wrappers taken out wherever they stand, such as "_orig_mod."."""
    keys: int
    """How many keys have another name after the repair."""
    examples: tuple[tuple[str, str], ...] = ()
    """A few (uploaded key, key after repair) pairs."""


class KeyConversion(Value):
    """Uploaded tensors that the module holds under other names or in another arrangement, element for element.

    The architecture's library, or the module's own load hooks, put them there. One name on both sides is a renaming;
    several are stacked, joined or split tensors whose elements were compared bit for bit.
    """

    uploaded: tuple[str, ...]
    loaded: tuple[str, ...]


class CheckpointInspection(Value):
    """What reading the file told, before any architecture is chosen."""

    format: CheckpointFormat
    bytes: int
    nesting: tuple[str, ...] = ()
    """Keys that lead from the top of the file to the state dict, such as ("model",)."""
    candidates: tuple[str, ...] = ()
    """Every dotted path in the file that holds a state dict; "" is the top."""
    tensors: tuple[TensorInfo, ...] = ()
    parameter_count: int = 0
    tensor_bytes: int = 0
    dtypes: dict[str, int] = {}
    """Number of tensors of each dtype."""
    notes: tuple[str, ...] = ()
    """What a reader should know, such as "3 tensors hold NaN"."""


class LoadReport(Value):
    """How the uploaded state dict met the architecture."""

    strict: bool
    nesting: tuple[str, ...] = ()
    repair: Repair | None = None
    missing_keys: tuple[str, ...] = ()
    unexpected_keys: tuple[str, ...] = ()
    shape_mismatches: tuple[str, ...] = ()
    ignored_keys: tuple[str, ...] = ()
    """Uploaded tensors left out: under strict=false, outside of the prefix, or by the architecture's own loading."""
    conversions: tuple[KeyConversion, ...] = ()
    unloaded_keys: tuple[str, ...] = ()
    """Missing keys that act on the outputs and that no pattern of allow_missing allows."""
    unknown_options: tuple[str, ...] = ()
    """Members of a config.json, dotted, that the architecture's options do not name: its library's configuration class
    got them, and may have read or ignored them."""
    hint: str | None = None
    """What to ask for so that more of the checkpoint is loaded, where ``unloaded_keys`` holds any."""


class ParameterReport(Value):
    """What ``parameters()`` and ``named_parameters()`` of the loaded module tell. Counts are elements."""

    total: int
    trainable: int
    buffers: int
    bytes: int
    tensors: tuple[TensorInfo, ...]
