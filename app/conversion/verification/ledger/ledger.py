"""The weight ledger: where each uploaded tensor went, and where each tensor of the artifact came from.

What it proves, and what it leaves to parity, is written down in docs/ledger.md.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from app.architectures.calling import EagerModel
from app.architectures.named_tensors import named_tensors
from app.conversion.influence import inputs_to_try, without_influence
from app.conversion.verification.ledger.books import Books
from app.conversion.verification.ledger.claims import check_claim
from app.conversion.verification.ledger.rewriting import judge_writes
from app.conversion.verification.ledger.sources import raw_bytes, same_bytes, sources_of
from app.domain.architecture import Signature
from app.domain.checkpoint import LoadReport
from app.domain.report import Ledger
from app.targets.artifact import StoredTensor
from app.targets.claims import Claim


def ledger_of(
    stored: Sequence[StoredTensor],
    claims: Mapping[str, Claim],
    *,
    uploaded: Mapping[str, Tensor],
    load: LoadReport,
    module: nn.Module,
    signature: Signature | None = None,
    certified: bool = False,
) -> Ledger:
    """The ledger of an artifact, from the tensors that were read from its bytes on disk.

    ``claims`` is what the artifact's template says of each place; ``uploaded`` the state dict after unwrapping and key
    repair, in its own dtypes; ``module`` the loaded module on the CPU. With a ``signature`` the module is run to learn
    whether a tensor that nothing carries has an influence; without one such tensors are unaccounted. ``certified``: a
    module of this structure was seen before to leave its weights as they are.
    """
    books = Books(list(stored), sources_of(uploaded, load, module))
    _check_module(books)
    _mark_counters(books, module)
    _check_claims(books, claims)
    if signature is not None:
        model = EagerModel(module, signature)
        if not certified:
            judge_writes(books, model)
        _prove_unused(books, model, certified=certified)
    return books.close(uploaded, load)


def _check_module(books: Books) -> None:
    """The module that parity runs must itself hold the upload, bit by bit."""
    for name, source in books.sources.by_name.items():
        held = books.sources.placed[name].detach()
        same = _one_memory(held, source.tensor) or same_bytes(raw_bytes(source.value()), raw_bytes(held))
        if source.kind == "uploaded" and not same:
            books.problems.append(f"{name}: the loaded module holds other values than the upload")


def _one_memory(left: Tensor, right: Tensor) -> bool:
    return (left.data_ptr(), left.dtype, left.stride()) == (right.data_ptr(), right.dtype, right.stride())


def _mark_counters(books: Books, module: nn.Module) -> None:
    """Counters of batch norms, which only training reads (torch.nn.modules.batchnorm)."""
    for path, child in module.named_modules():
        if isinstance(child, nn.modules.batchnorm._NormBase) and not child.training:
            name = f"{path}.num_batches_tracked" if path else "num_batches_tracked"
            if name in books.sources.by_name:
                books.unused[name] = "a counter that only training reads"


def _check_claims(books: Books, claims: Mapping[str, Claim]) -> None:
    """Hold every tensor of the artifact to the claims of its places, and find the place of every claim."""
    present: set[str] = set()
    for stored in books.stored:
        for place in (stored.name, *stored.aliases):
            present.add(place)
            claim = claims.get(place)
            objection = "the template does not claim it" if claim is None else check_claim(books, stored, place, claim)
            if objection is not None:
                books.explain(stored, "unexplained", claim.tensors if claim else (), objection)
                break
    books.problems += [f"{place}: claimed, but not in the artifact" for place in sorted(claims.keys() - present)]


def _prove_unused(books: Books, model: EagerModel, *, certified: bool) -> None:
    """Mark what no output depends on as unused; say of the others that they should be there."""
    open_ = books.open_sources()
    if not open_:
        return
    try:
        held = named_tensors(model.module)  # as they are now: a forward may have bound others
        inputs = inputs_to_try(model.signature, certified=certified)
        unused = without_influence(model, {name: held[name] for name in open_}, inputs)
    except Exception as error:  # noqa: BLE001 - a module's forward may raise anything; the report says what
        reason = f"the model could not be run without it: {type(error).__name__}: {error}"
        books.doubts |= dict.fromkeys(open_, reason)
        return
    books.unused |= dict.fromkeys(unused, "the outputs are bit for bit the same whatever values it has")
    reason = "the outputs depend on it, but no tensor of the artifact carries it"
    books.doubts |= dict.fromkeys(set(open_) - unused, reason)
