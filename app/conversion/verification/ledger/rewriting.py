"""Models that write into their own weights as they run, such as ``self.weight.clamp_()`` or an embedding's max_norm.

The loaded module and the upload share memory, so such a forward changes both: what the artifact holds is then compared
with what the model made of the upload, and the books say identical. A counter that no output depends on is no weight.
"""

import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from torch import Tensor

from app.conversion.verification.ledger.books import Books

_ATTRIBUTE = re.compile(r"^\s*(\w+) = \w+\.\w+$", re.MULTILINE)
_WRITTEN = re.compile(r"torch\.\w+_\((\w+)[,)]")
"""torch's operators that write into their first argument end in an underscore (torch.Tensor, in-place operations)."""


def rewritten_by(placed: Mapping[str, Tensor], run: Callable[[], object]) -> set[str]:
    """Keys of the tensors that one forward writes into, by torch's own count of writes; none where it raises."""
    # Torch keeps no count for tensors made in inference mode.
    before = {name: tensor._version for name, tensor in placed.items() if not tensor.is_inference()}
    with suppress(Exception):  # a module's forward may raise anything; parity says what
        run()
    return {name for name, version in before.items() if placed[name]._version != version}


def code_writes(artifact: Path) -> bool:
    """Whether the code of a TorchScript file calls an operator that writes, on an attribute of a module."""
    with zipfile.ZipFile(artifact) as archive:
        texts = [archive.read(name).decode() for name in archive.namelist() if name.endswith(".py")]
    return any(set(_ATTRIBUTE.findall(text)) & set(_WRITTEN.findall(text)) for text in texts)


def refuse_rewriting(books: Books, names: Iterable[str]) -> None:
    """Make a problem of every uploaded tensor among ``names`` that has a part in the outputs."""
    for name in sorted(names):
        if books.sources.by_name[name].kind == "uploaded" and name not in books.unused:
            books.problems.append(
                f"{name}: the model rewrites its weights: its forward writes into this tensor, so that no artifact "
                "can be held to what was uploaded"
            )
