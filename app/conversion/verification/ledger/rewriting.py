"""Models that write into their own weights as they run, such as ``self.weight.clamp_()`` or an embedding's max_norm.

The loaded module and the upload share memory, so such a forward changes both: what the artifact holds is then compared
with what the model made of the upload, and the books say identical. A counter that no output depends on is no weight.
"""

from collections.abc import Callable
from contextlib import suppress

from torch import nn

from app.conversion.exporters.weight_writes import watching
from app.conversion.verification.ledger.books import Books
from app.conversion.verification.ledger.forward import EagerTrace

_COUNTER = "a counter that the forward writes and no output depends on"


def judge_writes(books: Books, module: nn.Module, run: Callable[[], EagerTrace]) -> None:
    """Make a problem of every uploaded tensor that one forward writes into and has a use for, and excuse counters.

    Where the forward raises, everything that it wrote counts as used.
    """
    found: EagerTrace | None = None
    with watching(module) as written, suppress(Exception):  # a module's forward may raise anything; parity says what
        found = run()
    for name in sorted(written):
        source = books.sources.by_name.get(name)
        if source is None or source.kind != "uploaded":
            continue
        if found is not None and name not in found.reached:
            _excuse(books, name)
            continue
        books.problems.append(
            f"{name}: the model rewrites its weights: its forward writes into this tensor, so that no artifact "
            "can be held to what was uploaded"
        )


def _excuse(books: Books, name: str) -> None:
    """Explain a counter: by the time of this reading it has counted on, here or in the artifact."""
    if name not in books.carriers:
        books.unused[name] = _COUNTER
        for stored in books.unexplained():
            if stored.name == name:
                books.explain(stored, "constant", (name,), _COUNTER)
