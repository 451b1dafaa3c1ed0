"""What is said of a stored tensor, by a template's claim or by its own name, recomputed and compared."""

import hashlib

from app.conversion.verification.artifact.onnx_tensors import StoredTensor
from app.conversion.verification.claims import Arrangement, InitializerClaim
from app.conversion.verification.ledger.books import Books
from app.conversion.verification.ledger.content import ONNX_DTYPES, matching_axes
from app.conversion.verification.ledger.folds import carries, conv_bn
from app.conversion.verification.ledger.sources import Source, raw_bytes, same_bytes


def check_claim(books: Books, stored: StoredTensor, claim: InitializerClaim) -> str | None:
    """Enter the stored tensor as claimed, or say what of the claim is not so."""
    if claim.kind == "constant":
        if claim.sha256 is not None and hashlib.sha256(stored.data.data).hexdigest() != claim.sha256:
            return "its bytes are not the template's constant"
        books.explain(stored, "constant", (), "a constant of the template, the same for all weights")
        return None
    unknown = [name for name in claim.tensors if name not in books.sources.by_name]
    if unknown:
        return f"it is claimed to hold {', '.join(unknown)}, which neither upload nor architecture has"
    if claim.kind == "folded":
        return _check_fold(books, stored, claim)
    if claim.arrange is not None:
        return _check_arrangement(books, stored, claim, claim.arrange)
    return _check_content(books, stored, claim, books.sources.by_name[claim.tensors[0]])


def _check_content(books: Books, stored: StoredTensor, claim: InitializerClaim, source: Source) -> str | None:
    dtype = ONNX_DTYPES.get(stored.data_type)
    if dtype is None or (dtype != source.dtype and claim.kind != "cast"):
        return f"its element type is not that of {source.name}"
    value = source.tensor.detach().to(dtype)
    shape = tuple(value.shape)
    if claim.perm is not None:
        if sorted(claim.perm) != list(range(value.ndim)):
            return f"{claim.perm} is no order of the axes of {source.name}"
        value = value.permute(claim.perm)
    if claim.kind in ("identical", "cast") and stored.dims != shape:
        return f"its dims {stored.dims} are not the shape {shape} of {source.name}"
    if not same_bytes(raw_bytes(value), stored.data):
        return f"its bytes are not those of {source.name}{'' if claim.perm is None else ' transposed'}"
    if claim.kind == "transposed":
        books.carry(stored, source, "transposed", f"axes {claim.perm}")
    elif claim.kind == "reshaped":
        books.carry(stored, source, "identical", f"as {stored.dims}")
    else:
        books.carry(stored, source, "identical" if dtype == source.dtype else "cast")
    return None


def _check_arrangement(books: Books, stored: StoredTensor, claim: InitializerClaim, arrange: Arrangement) -> str | None:
    value = arrange(books.sources.value)
    if ONNX_DTYPES.get(stored.data_type) != value.dtype or stored.dims != tuple(value.shape):
        return f"it is not of the shape and element type of {', '.join(claim.tensors)} arranged"
    if not same_bytes(raw_bytes(value), stored.data):
        return f"its bytes are not those of {', '.join(claim.tensors)} arranged"
    books.explain(stored, "fold", claim.tensors, "elements placed anew, same bytes")
    books.fold(claim.tensors, stored, "elements placed anew, same bytes")
    return None


def _check_fold(books: Books, stored: StoredTensor, claim: InitializerClaim) -> str | None:
    fold, dtype = claim.fold, ONNX_DTYPES.get(stored.data_type)
    if fold is None or dtype is None or not dtype.is_floating_point:
        return "a fold has a floating-point element type"
    ratio = carries(stored, conv_bn(fold, books.sources.value, dtype), claim.perm)
    if ratio is None:
        return f"it is not the {fold.part} of {fold.weight} with its batch norm"
    detail = f"{fold.part} of {fold.weight} with its batch norm; largest error {ratio:.2f} of the rounding bound"
    books.explain(stored, "fold", claim.tensors, detail)
    books.fold(claim.tensors, stored, "batch norm folded, recomputed in float64")
    return None


def check_name(books: Books, stored: StoredTensor) -> bool:
    """Enter a stored tensor that has a key's name and that key's bytes, in any order of its axes."""
    source = books.sources.by_name.get(stored.name)
    if source is None or ONNX_DTYPES.get(stored.data_type) != source.dtype or source.tensor.numel() != stored.numel:
        return False
    value = source.value()
    if same_bytes(raw_bytes(value), stored.data):
        moved = stored.dims != tuple(value.shape)
        detail, axes = (f"as {stored.dims}", None) if moved else (None, tuple(range(value.ndim)))
        books.carry(stored, source, "identical", detail, axes)
        return True
    axes = matching_axes(stored, value) if stored.dims != tuple(value.shape) else None
    if axes is None:
        return False
    books.carry(stored, source, "transposed", f"axes {axes}", axes)
    return True
