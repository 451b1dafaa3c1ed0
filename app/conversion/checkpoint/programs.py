"""Weights inside of programs: TorchScript archives and torch.export's, read without their code.

A TorchScript archive holds its module as a pickle of objects whose classes the archive's own code defines
(torch/csrc/jit/serialization/pickler.cpp); a ``.pt2`` archive has tables in JSON that say where each tensor lies
(torch/export/pt2_archive/_package.py). The weights come out under the names that the program has for them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from app.conversion.checkpoint.json_table import read_table
from app.conversion.checkpoint.names import check_key, shown
from app.conversion.checkpoint.pickle_machine import MAX_PICKLE
from app.conversion.checkpoint.pickle_values import Made, Vocabulary
from app.conversion.checkpoint.stored_tensors import MAX_TENSORS, Storage, Stored, TensorView, Unreadable
from app.conversion.checkpoint.torch_files import Contents, Pickles, is_big_endian, place_storages
from app.conversion.checkpoint.torch_vocabulary import TORCH
from app.conversion.checkpoint.zip_layout import ZipLayout
from app.domain.errors import AlreadyTorchScript, CorruptCheckpoint, PayloadTooLarge
from app.targets.pt2.reading.archive import DTYPES

_DEEPEST = 200
_MOST_OBJECTS = 1_000_000
"""Attributes of all modules of a program, under all their paths."""
_TAGS = "torch.jit._pickle."
"""Functions by which TorchScript says of a list or a dict what its elements are."""
_WEIGHTS = "data/weights/"
_TABLE = f"{_WEIGHTS}model_weights_config.json"
_DTYPES = {**DTYPES, 9: torch.complex32, 33: torch.float8_e8m0fnu}
"""Of each number of ScalarType, also of those that no artifact of ours holds."""

ProgramFormat = Literal["torchscript", "pt2"]


def program_of(names: Sequence[str]) -> ProgramFormat | None:
    """Whether an archive with these members is a program, and which kind."""
    ends = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in ends and any("/code/" in name or name.startswith("code/") for name in names):
        return "torchscript"
    if "archive_format" in ends or any("/models/" in name and name.endswith(".json") for name in names):
        return "pt2"
    return None


def read_torchscript(layout: ZipLayout) -> Contents:
    """The attributes of the module that are tensors, by their dotted paths.

    Raises AlreadyTorchScript where they have no names (a frozen module), CorruptCheckpoint and what reading a pickle
    raises.
    """
    pickled = layout.records.get("data.pkl")
    if pickled is None or pickled.size > MAX_PICKLE:
        raise PayloadTooLarge(f"data.pkl is missing, or longer than {MAX_PICKLE >> 20} MiB.")
    vocabulary = Vocabulary(TORCH.rules, TORCH.values, lambda name: name.startswith(("__torch__.", _TAGS)))
    pickles = Pickles(pickled.read(), vocabulary=vocabulary)
    root = pickles.read()
    place_storages(pickles, layout, swapped=is_big_endian(layout))
    tensors = _tensors(root)
    if not tensors:
        raise AlreadyTorchScript("The archive's weights have no names: the module was frozen into its code.")
    return Contents(tensors, ("read from a TorchScript archive; its code was not run",))


def _tensors(root: object) -> dict[str, Stored]:
    """Tensors below an object by their paths, in the order of its attributes.

    One object may be there under many paths, whose number doubles with every level: so what is looked at is counted.
    """
    found: dict[str, Stored] = {}
    waiting: list[tuple[str, object, int, object]] = [("", "", 0, root)]
    looked_at = 0
    while waiting:
        above, name, depth, value = waiting.pop()
        if depth > _DEEPEST:
            raise CorruptCheckpoint("The module's objects nest too deep.")
        if isinstance(value, (TensorView, Unreadable)):
            found[_below(above, name)] = value
        elif isinstance(value, Made) and value.by.startswith("__torch__.") and isinstance(value.state, Mapping):
            looked_at += len(value.state)
            if looked_at > _MOST_OBJECTS or len(found) > MAX_TENSORS:
                raise PayloadTooLarge(
                    f"The module has more than {_MOST_OBJECTS:,} attributes or {MAX_TENSORS:,} tensors in all paths."
                )
            if value.state:
                path = _below(above, name) if depth else ""
                waiting += reversed([(path, below, depth + 1, part) for below, part in value.state.items()])
    return found


def _below(path: str, name: object) -> str:
    """The path of an attribute. Raises UnsupportedTensor."""
    return check_key(f"{path}.{check_key(str(name))}" if path else check_key(str(name)))


def read_pt2(layout: ZipLayout) -> Contents:
    """The state dict of the program in a ``.pt2`` archive. Raises CorruptCheckpoint."""
    record = layout.records.get(_TABLE)
    if record is None:
        raise CorruptCheckpoint(
            "The archive has no table of its weights: it was written by torch before 2.9, or holds no model.",
            hint="Save the weights instead: torch.save(torch.export.load(path).state_dict, 'weights.pth').",
        )
    described = read_table(record, "The table of weights", most=MAX_PICKLE)
    try:
        table = described["config"]
        if len(table) > MAX_TENSORS:
            raise PayloadTooLarge(f"The table names {len(table):,} weights; at most {MAX_TENSORS:,} are read.")
        weights = _Weights(layout, swapped=is_big_endian(layout))
        tensors = {check_key(str(key)): weights.described(key, entry) for key, entry in table.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptCheckpoint(f"The table of weights cannot be read: {type(error).__name__}.") from error
    return Contents(tensors, ("read from a torch.export archive; its program was not run",))


class _Weights:
    """The records of a ``.pt2`` archive as its table describes them."""

    def __init__(self, layout: ZipLayout, *, swapped: bool) -> None:
        self._records, self._swapped = layout.records, swapped
        self._storages: dict[str, Storage] = {}

    def described(self, key: str, entry: Mapping[str, Any]) -> Stored:
        """Raises CorruptCheckpoint, and what a table of another form makes Python raise."""
        if entry["use_pickle"] is not False:
            return Unreadable("stored as a pickle of a tensor subclass", "Save its plain tensors.")
        meta, path = entry["tensor_meta"], entry["path_name"]
        if not isinstance(path, str):
            raise TypeError
        name = f"{_WEIGHTS}{path}"
        extent = self._records.get(name)
        if extent is None:
            raise CorruptCheckpoint(f"No record of the archive holds the weight {shown(key)!r}.")
        dtype = _DTYPES[meta["dtype"]]
        if name not in self._storages:
            self._storages[name] = Storage(name, dtype, extent.size, extent, swapped=self._swapped)
        sizes, strides = (tuple(size["as_int"] for size in meta[part]) for part in ("sizes", "strides"))
        return TensorView(self._storages[name], dtype, meta["storage_offset"]["as_int"], sizes, strides)
