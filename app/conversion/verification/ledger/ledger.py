"""The weight ledger: where each uploaded tensor went, and where each tensor of the artifact came from.

What it proves, and what it leaves to parity, is written down in docs/ledger.md.
"""

from collections.abc import Iterator, Mapping, Set
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from app.conversion.verification.artifact.onnx_tensors import StoredTensor, read_onnx
from app.conversion.verification.artifact.torchscript_tensors import read_torchscript
from app.conversion.verification.claims import InitializerClaim
from app.conversion.verification.ledger.books import Books
from app.conversion.verification.ledger.claims import check_claim, check_name
from app.conversion.verification.ledger.constants import constant_rule
from app.conversion.verification.ledger.fold_sites import match_folds
from app.conversion.verification.ledger.forward import unheard
from app.conversion.verification.ledger.graph_uses import GraphUse, graph_uses
from app.conversion.verification.ledger.order import Tokens, misplaced, tracks_of
from app.conversion.verification.ledger.orientation import misoriented
from app.conversion.verification.ledger.rewriting import judge_writes
from app.conversion.verification.ledger.runs import SMALL, Run, runs, traced_run
from app.conversion.verification.ledger.scalars import match_scalars
from app.conversion.verification.ledger.search import (
    match_content,
    match_parts,
    match_recurrent,
    match_shared,
    match_slopes,
)
from app.conversion.verification.ledger.sources import raw_bytes, same_bytes, sources_of
from app.conversion.verification.ledger.strays import strays
from app.conversion.verification.ledger.tables import TableSearch, open_tables
from app.conversion.verification.ledger.values import Accounts, ValueSearch
from app.domain.architecture import Signature
from app.domain.checkpoint import LoadReport
from app.domain.report import Ledger


def onnx_ledger(
    artifact: Path,
    uploaded: Mapping[str, Tensor],
    load: LoadReport,
    module: nn.Module,
    claims: Mapping[str, InitializerClaim] | None,
    *,
    signature: Signature | None = None,
    certified: bool = False,
) -> Ledger:
    """The ledger of an ONNX file (external data beside it), from its bytes on disk.

    ``uploaded`` is the state dict after unwrapping and key repair, in its own dtypes; ``module`` the loaded module on
    the CPU. ``claims`` names every initializer of a template's artifact; None: what each holds is searched for. With a
    ``signature`` the eager forward is run where the search or a tensor that nothing carries needs it; without one such
    tensors are unaccounted. ``certified``: a module of this structure was seen before to leave its weights as they are.
    Raises MalformedFile when the file cannot be read.
    """
    file = read_onnx(artifact)
    books = Books(list(file.tensors()), sources_of(uploaded, load, module))
    _check_module(books)
    _mark_counters(books, module)
    if claims is None:
        _by_names(books)
    else:
        _by_claims(books, claims)
    uses = graph_uses(file)
    renamed = claims is None
    if not _settled(books) or (renamed and books.open_buffers()):
        _by_search(books, uses, module, signature, renamed=renamed)
    if renamed:
        _tables(books, module, signature)
    if not certified:
        _judge_writes(books, module, signature)
    _constants(books, uses)
    return books.close(uploaded, load)


def torchscript_ledger(
    artifact: Path,
    uploaded: Mapping[str, Tensor],
    load: LoadReport,
    module: nn.Module,
    *,
    signature: Signature | None = None,
    certified: bool = False,
) -> Ledger:
    """The ledger of a TorchScript file, from its bytes on disk; arguments as for ``onnx_ledger``.

    Attributes are held to the keys of their names. A frozen module's constants are searched for, and their order in
    the code's text is the order of use.
    """
    file = read_torchscript(artifact)
    books = Books(list(file.tensors), sources_of(uploaded, load, module))
    _check_module(books)
    _mark_counters(books, module)
    _by_names(books)
    uses = list(file.uses)
    if not _settled(books) or books.open_buffers():
        _by_search(books, uses, module, signature, renamed=True)
    _tables(books, module, signature)
    if not certified:
        _judge_writes(books, module, signature)
    _constants(books, uses)
    return books.close(uploaded, load)


def _check_module(books: Books) -> None:
    """The module that parity runs must itself hold the upload, bit by bit."""
    for name, source in books.sources.by_name.items():
        held = books.sources.placed[name].detach()
        same = _one_memory(held, source.tensor) or same_bytes(raw_bytes(source.value()), raw_bytes(held))
        if source.kind == "uploaded" and not same:
            books.differing.add(name)
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


def _by_claims(books: Books, claims: Mapping[str, InitializerClaim]) -> None:
    """Hold every initializer to its claim. Tensors in node attributes belong to the graph and may be unclaimed."""
    for stored in books.stored:
        claim = claims.get(stored.name)
        if claim is not None:
            objection = check_claim(books, stored, claim)
            if objection is not None:
                books.explain(stored, "unexplained", claim.tensors, objection)
        elif stored.place != "attribute":
            books.explain(stored, "unexplained", (), "the template does not claim it")
    present = {stored.name for stored in books.stored}
    books.problems += [f"{name}: claimed, but not in the artifact" for name in claims if name not in present]


def _by_names(books: Books) -> None:
    for stored in books.stored:
        check_name(books, stored)


def _settled(books: Books) -> bool:
    """Whether names or claims told everything: nothing is left but what can only be a constant."""
    return (
        not books.open_sources()
        and not books.open_buffers()
        and all(
            stored.name not in books.sources.by_name and constant_rule(stored, []) for stored in books.unexplained()
        )
    )


def _by_search(
    books: Books, uses: list[GraphUse], module: nn.Module, signature: Signature | None, *, renamed: bool
) -> None:
    """Find what names and claims left open. ``renamed``: stored tensors may have lost their names."""
    recurrent: dict[StoredTensor, str] = {}
    if renamed:
        match_content(books, [stored for stored in books.unexplained() if stored.name not in books.sources.by_name])
        recurrent = match_recurrent(books, module, uses)
        match_slopes(books, uses)
        match_shared(books)
    if signature is None:
        return
    forwards = runs(module, signature) if renamed else iter([traced_run(module, signature, SMALL)])
    try:
        reached = _by_trace(books, next(forwards), uses, recurrent, renamed=renamed)
        _prove_unused(books, reached, forwards, uses)
    except Exception as error:  # noqa: BLE001 - a module's forward may raise anything; the report says what
        reason = f"the eager forward could not be followed: {type(error).__name__}: {error}"
        books.doubts |= dict.fromkeys(books.open_sources(), reason)


def _by_trace(
    books: Books,
    run: Run,
    uses: list[GraphUse],
    recurrent: Mapping[StoredTensor, str],
    *,
    renamed: bool,
    judged: Set[str] = frozenset(),
) -> set[str]:
    """Search with a trace of the eager forward, and check positions; gives the keys that the forward reached.

    Of ``judged``, keys that an earlier forward reached, nothing more is decided.
    """
    tokens = Tokens()
    search = ValueSearch(books, tokens)
    found = run(search.offer)
    search.explain()
    whole = {name: [carrier.stored for carrier in carriers] for name, carriers in books.carriers.items()}
    for stored, name in recurrent.items():
        whole.setdefault(name, []).append(stored)
    for name, carriers in whole.items():
        for stored in carriers:
            if name in found.leaf:
                tokens.join(stored, found.leaf[name])
    if renamed:
        if not any(at.counted for at in uses):
            found.uses[:] = [replace(use, zeros=0) for use in found.uses]  # no compiler of TorchScript leaves zeros out
        match_folds(books, found, tokens, uses, search.orders)
        lost = match_scalars(books, found, search, judged, tokens=tokens, graph=uses)
        for stored, parts in match_parts(books).items():
            for name, _, _ in parts:
                tokens.join(stored, tokens.part(found.leaf[name]))
        Accounts(books, search, lost).settle(found.uses, judged)
        tracks = tracks_of(tokens, found.uses, uses)
        problems = misplaced(tracks, found.uses) + strays(tokens, tracks, found.uses, uses)
        orders = {(stored, found.leaf[name]): axes for (stored, name), axes in books.orders() if name in found.leaf}
        problems += misoriented(orders | search.orders, found.uses, uses)
        books.problems += [problem for problem in problems if problem not in books.problems]
    return found.reached


def _prove_unused(books: Books, reached: set[str], forwards: Iterator[Run], uses: list[GraphUse]) -> None:
    """Mark what no forward reads as unused; say of the others that they should be there.

    Compiled code holds the branches that the first forward did not take, too: there each is searched for in its turn.
    """
    compiled = bool(uses) and not any(at.counted for at in uses)
    while set(books.open_sources()) - reached and (run := next(forwards, None)) is not None:
        if compiled:
            reached = reached | _by_trace(books, run, uses, {}, renamed=True, judged=reached)
        else:
            reached = reached | run(unheard).reached
    for name in books.open_sources():
        if name not in reached:
            books.unused[name] = "without influence on the outputs of the eager forward"
        else:
            books.doubts.setdefault(name, "the eager forward reads it, but no tensor of the artifact carries it")


def _judge_writes(books: Books, module: nn.Module, signature: Signature | None) -> None:
    if signature is not None:
        run = traced_run(module, signature, SMALL)
        judge_writes(books, module, lambda: run(unheard))


def _tables(books: Books, module: nn.Module, signature: Signature | None) -> None:
    """Hold tables to what the architecture has in their place; where its forward cannot be followed, to their kind."""
    match_content(books, open_tables(books))
    tables = open_tables(books)
    if not tables or signature is None:
        return
    search = TableSearch(books, module, tables)
    with suppress(Exception):  # a module's forward may raise anything; where it matters, the search above has said so
        search.explain(traced_run(module, signature, {})(search.offer))


def _constants(books: Books, uses: list[GraphUse]) -> None:
    """Explain what can only be a constant. A state-dict key's name is not excused: it promises that key's bytes."""
    by_tensor: dict[StoredTensor, list[GraphUse]] = {}
    for use in uses:
        by_tensor.setdefault(use.stored, []).append(use)
    for stored in books.unexplained():
        if stored.name in books.sources.by_name:
            books.explain(stored, "unexplained", (stored.name,), "it has this key's name, but other bytes")
            continue
        rule = constant_rule(stored, by_tensor.get(stored, []))
        if rule is not None:
            books.explain(stored, "constant", (), rule)
