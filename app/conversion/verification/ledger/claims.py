"""Holding a stored tensor to what the template claims of its place."""

import hashlib

from app.conversion.verification.ledger.books import Books
from app.conversion.verification.ledger.quantized import check_quantized
from app.conversion.verification.ledger.sources import raw_bytes, same_bytes
from app.domain.report import LedgerClass
from app.targets.artifact import StoredTensor
from app.targets.claims import Claim

_CLASS: dict[str, tuple[LedgerClass, str | None]] = {
    "identical": ("identical", None),
    "cast": ("cast", None),
    "reshaped": ("identical", "under other dims"),
    "transposed": ("transposed", None),
}
_ARRANGED = "elements placed anew, same bytes"


def check_claim(books: Books, stored: StoredTensor, place: str, claim: Claim) -> str | None:
    """Enter the stored tensor as it is claimed of one of its places, or say what of the claim is not so."""
    if claim.evaluate is None:
        return _check_constant(books, stored, place, claim)
    unknown = [name for name in claim.tensors if name not in books.sources.by_name]
    if unknown:
        return f"it is claimed to hold {', '.join(unknown)}, which neither upload nor architecture has"
    made_of = ", ".join(claim.tensors)
    value = claim.evaluate(books.sources.value)
    if claim.axis is not None:
        return check_quantized(books, stored, claim, value)
    if stored.dtype != value.dtype or stored.dims != tuple(value.shape):
        return f"it is not of the shape and element type of {made_of}, {claim.kind}"
    if not same_bytes(raw_bytes(value), stored.data):
        return f"its bytes are not those of {made_of}, {claim.kind}"
    if claim.kind == "arranged":
        books.explain(stored, "fold", claim.tensors, _ARRANGED)
        books.fold(claim.tensors, stored, _ARRANGED)
    else:
        how, detail = _CLASS[claim.kind]
        books.carry(stored, books.sources.by_name[claim.tensors[0]], how, detail)
    return None


def _check_constant(books: Books, stored: StoredTensor, place: str, claim: Claim) -> str | None:
    """A constant that lies under the name of a tensor of the architecture must be that tensor as well."""
    if hashlib.sha256(stored.data.data).hexdigest() != claim.sha256:
        return "its bytes are not the template's constant"
    source = books.sources.by_name.get(place)
    if source is None:
        books.explain(stored, "constant", (), "a constant of the template, the same for all weights")
    elif source.kind == "buffer" and same_bytes(raw_bytes(source.value()), stored.data):
        books.carry(stored, source, "identical")
    else:
        return f"a constant has the name of {source.name}, but not its bytes"
    return None
