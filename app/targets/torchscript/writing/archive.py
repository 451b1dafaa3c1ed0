"""The records of a TorchScript archive, the same for the same module.

torch.jit.save writes source locations of the server (``*.debug_pkl``), names the root folder after the file, and keeps
class names that count what the process compiled before (names.py). All three are taken out here.
"""

import tempfile
import zipfile
from pathlib import Path

import torch

from app.targets.capturing.quiet import collected
from app.targets.torchscript.writing.names import canonical_names


def archive_records(module: torch.jit.ScriptModule, beside: Path, *, keep_debug: bool) -> dict[str, bytes]:
    """Content of every record below the root folder, in the order in which the archive shall hold them.

    ``keep_debug`` keeps torch's own, source locations and names included. ``beside`` is where room on disk is.
    """
    with tempfile.TemporaryDirectory(dir=beside.parent, prefix="torchscript-") as scratch, collected():
        saved = Path(scratch) / "archive.pt"
        torch.jit.save(module, str(saved))
        with zipfile.ZipFile(saved) as archive:
            records = {info.filename.partition("/")[2]: archive.read(info) for info in archive.infolist()}
    return records if keep_debug else _canonical(records)


def _canonical(records: dict[str, bytes]) -> dict[str, bytes]:
    texts = {name: text for name, text in records.items() if name.startswith("code/") and name.endswith(".py")}
    pickles = {name: pickled for name, pickled in records.items() if name.endswith(".pkl")}
    texts, pickles = canonical_names(texts, pickles)
    rewritten = {**pickles, **dict(sorted(texts.items()))}
    # Programs that use newer operators keep their version under .data; the serialization id beside it is dropped.
    first = {
        name: content
        for name, content in records.items()
        if name == ".data/version" or ("/" in name and not name.startswith(("code/", ".data/")))
    }
    last = {name: content for name, content in records.items() if "/" not in name and name not in rewritten}
    return {**first, **rewritten, **last}
