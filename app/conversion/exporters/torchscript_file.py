"""Writing a TorchScript archive that is the same for the same module.

torch.jit.save writes source locations of the server (``*.debug_pkl``), names the root folder after the file, and keeps
class names that count what the process compiled before (torchscript_names.py). All three are taken out here.
"""

import tempfile
import zipfile
from pathlib import Path

import torch

from app.conversion.exporters.torchscript_names import canonical_names

ROOT = "archive"
ALIGNMENT = 64
"""Bytes. torch aligns tensor records so that they can be memory-mapped (caffe2/serialize/inline_container.h)."""

_EPOCH = (1980, 1, 1, 0, 0, 0)
_LOCAL_HEADER = 30  # APPNOTE.TXT 4.3.7, the fixed part
_PADDING_ID = b"FB"  # the extra field that torch pads with
_ZIP64_FIELD = 20
_BLOCK = 1 << 20


def write_archive(module: torch.jit.ScriptModule, path: Path, *, keep_debug: bool) -> None:
    """Save ``module`` to ``path``, with stored records, fixed times, aligned tensors and canonical names.

    ``keep_debug`` keeps torch's own file, source locations and names included.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="torchscript-") as scratch:
        saved = Path(scratch) / f"{ROOT}.pt"
        torch.jit.save(module, str(saved))
        if keep_debug:
            saved.replace(path)
            return
        with zipfile.ZipFile(saved) as source, path.open("wb") as file, zipfile.ZipFile(file, "w") as target:
            _rewrite(source, target)


def _rewrite(source: zipfile.ZipFile, target: zipfile.ZipFile) -> None:
    members = {info.filename.partition("/")[2]: info for info in source.infolist()}
    texts = {
        name: source.read(info) for name, info in members.items() if name.startswith("code/") and name.endswith(".py")
    }
    pickles = {name: source.read(info) for name, info in members.items() if name.endswith(".pkl")}
    texts, pickles = canonical_names(texts, pickles)
    rewritten = {**pickles, **dict(sorted(texts.items()))}
    for name, info in members.items():
        # Programs that use newer operators keep their version under .data; the serialization id beside it is dropped.
        if name == ".data/version" or ("/" in name and not name.startswith(("code/", ".data/"))):
            _copy(source, info, target, name)
    for name, content in rewritten.items():
        with target.open(_entry(target, name, len(content)), "w") as record:
            record.write(content)
    for name, info in members.items():
        if "/" not in name and name not in rewritten:
            _copy(source, info, target, name)


def _copy(source: zipfile.ZipFile, info: zipfile.ZipInfo, target: zipfile.ZipFile, name: str) -> None:
    with source.open(info) as record, target.open(_entry(target, name, info.file_size), "w") as copy:
        while block := record.read(_BLOCK):
            copy.write(block)


def _entry(target: zipfile.ZipFile, name: str, size: int) -> zipfile.ZipInfo:
    """A stored record whose content will start at a multiple of ALIGNMENT."""
    entry = zipfile.ZipInfo(f"{ROOT}/{name}", _EPOCH)
    entry.file_size = size
    assert target.fp is not None
    start = target.fp.tell() + _LOCAL_HEADER + len(entry.filename.encode()) + 4
    if size * 1.05 > zipfile.ZIP64_LIMIT:  # zipfile's own rule for writing the 64-bit sizes into the header
        start += _ZIP64_FIELD
    padding = -start % ALIGNMENT
    entry.extra = _PADDING_ID + padding.to_bytes(2, "little") + bytes(padding)
    return entry
