"""Which of the three checkpoint formats a file is, or what else it looks like."""

import json
from pathlib import Path

from app.domain.checkpoint import CheckpointFormat
from app.domain.errors import EmptyFile, UnsupportedFormat

HEAD = 4096
"""Bytes from the start of a file that tell its format."""

# torch/serialization.py: MAGIC_NUMBER, pickled with protocol 2 as a LONG1 at the start of the legacy format.
_LEGACY_MAGIC = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"%PDF-", "a PDF document"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras or TensorFlow weights)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x93NUMPY", "a NumPy .npy array"),
    (b"GGUF", "a GGUF file (llama.cpp)"),
    (b"\x7fELF", "an ELF executable"),
    (b"MZ", "a Windows executable"),
)


def recognise(path: Path) -> CheckpointFormat:
    """The format of the file, told from its first bytes alone. Errors as recognise_head."""
    with path.open("rb") as file:
        return recognise_head(file.read(HEAD))


def recognise_head(head: bytes) -> CheckpointFormat:
    """The format of a file that starts with ``head``: its first HEAD bytes, or all of them.

    Raises EmptyFile, or UnsupportedFormat whose ``looks_like`` says what the file seems to be instead.
    """
    if not head:
        raise EmptyFile(
            "The file has 0 bytes.", hint="The upload or the save before it was cut off; save and send again."
        )
    if head.startswith(b"PK\x03\x04"):
        return "torch-zip"
    if _is_safetensors(head):
        return "safetensors"
    if _is_legacy(head):
        return "torch-legacy"
    raise foreign(looks_like(head))


def foreign(what: str, hint: str | None = None) -> UnsupportedFormat:
    return UnsupportedFormat(f"The file looks like {what}, not like a PyTorch checkpoint.", hint=hint, looks_like=what)


def looks_like(head: bytes) -> str:
    """In words, what a file that starts with ``head`` seems to be."""
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    start = head.lstrip()[:200].lower()
    tests = (
        (head[257:262] == b"ustar", "a tar archive (also the format of torch before 0.1.10)"),
        (start.startswith((b"<!doctype html", b"<html")), "an HTML page"),
        (start.startswith(b"version https://git-lfs"), "a Git LFS pointer: the file itself was never fetched"),
        (head[:1] == b"\x08" and (b"pytorch" in head or b"onnx" in head), "an ONNX model"),
        (head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05", "a Python pickle that torch.save did not write"),
    )
    return next((name for matches, name in tests if matches), None) or _text_or_bytes(head, start)


def _text_or_bytes(head: bytes, start: bytes) -> str:
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return "binary data of no known format"
    if b"\x00" in head:
        return "binary data of no known format"
    return "JSON text" if start.startswith((b"{", b"[")) else "plain text"


def _is_safetensors(head: bytes) -> bool:
    """8 bytes of little-endian header length, then a JSON object (safetensors README, "Format")."""
    if len(head) < 10 or head[8:9] != b"{":
        return False
    length = int.from_bytes(head[:8], "little")
    if length >= len(head):
        return head[9:].lstrip()[:1] in (b'"', b"}")
    try:
        return isinstance(json.loads(head[8 : 8 + length]), dict)
    except (ValueError, RecursionError):
        return head[9:].lstrip()[:1] == b'"'


def _is_legacy(head: bytes) -> bool:
    # After the protocol's 2 bytes, from protocol 4 on after a frame's 9 as well.
    return head[:1] == b"\x80" and any(head.startswith(_LEGACY_MAGIC, at) for at in (2, 11))
