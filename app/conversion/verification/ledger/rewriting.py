"""Models that write into their own weights as they run, such as ``self.weight.clamp_()`` or an embedding's max_norm.

The loaded module and the upload share memory, so such a forward changes both: what the artifact holds is then compared
with what the model made of the upload, and the books say identical. A counter that no output depends on is no weight.
"""

from contextlib import suppress

from app.architectures.calling import EagerModel, call
from app.architectures.named_tensors import named_tensors
from app.conversion.influence import inputs_to_try, without_influence
from app.conversion.verification.ledger.books import Books
from app.targets.capturing.weight_writes import watching

_COUNTER = "a counter that the forward writes and no output depends on"


def judge_writes(books: Books, model: EagerModel) -> None:
    """Make a problem of every uploaded tensor that one forward writes into and has a use for, and excuse counters.

    Where the forward raises, everything that it wrote counts as used.
    """
    inputs = next(iter(inputs_to_try(model.signature, certified=True)))
    with (
        watching(model.module) as written,
        suppress(Exception),
    ):  # a module's forward may raise anything; parity says what
        call(model, inputs)
    by_name = books.sources.by_name
    names = sorted(name for name in written if name in by_name and by_name[name].kind == "uploaded")
    if not names:
        return
    idle: set[str] = set()
    with suppress(Exception):
        held = named_tensors(model.module)  # as they are now: the forward may have bound others
        idle = without_influence(model, {name: held[name] for name in names}, [inputs])
    for name in names:
        if name in idle:
            _excuse(books, name)
        else:
            books.problems.append(
                f"{name}: the model rewrites its weights: its forward writes into this tensor, so that no artifact "
                "can be held to what was uploaded"
            )


def _excuse(books: Books, name: str) -> None:
    """Explain a counter: by the time of this reading it has counted on, here or in the artifact."""
    if name not in books.carriers:
        books.unused[name] = _COUNTER
        for stored in books.stored:
            if stored.name == name:
                books.explain(stored, "constant", (name,), _COUNTER)
