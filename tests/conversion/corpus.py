"""Writers of checkpoint files: as training scripts make them, and as nobody should."""

import io
import json
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch


def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"0.weight": torch.randn(4, 3, generator=generator), "0.bias": torch.randn(4, generator=generator)}


def training_checkpoint() -> dict[str, Any]:
    """What a training loop saves, optimizer state included."""
    layer = torch.nn.Linear(3, 4)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.randn(2, 3)).sum().backward()
    optimizer.step()
    return {"epoch": 3, "model": weights(), "optim": optimizer.state_dict(), "loss": torch.tensor(0.5)}


def saved(content: object, path: Path, *, legacy: bool = False) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def rezipped(
    source: Path,
    target: Path,
    change: Callable[[str, bytes], bytes | None] = lambda _, content: content,
    compression: int = zipfile.ZIP_STORED,
    extra: Mapping[str, bytes] | None = None,
) -> Path:
    """``source`` packed again: records changed, left out (None) or added."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for info in old.infolist():
            content = change(info.filename, old.read(info))
            if content is not None:
                new.writestr(info.filename, content)
        for name, content in (extra or {}).items():
            new.writestr(name, content)
    return target


class Rebuilt:
    """Pickles as a call of torch's tensor builder with chosen arguments."""

    def __init__(self, size: tuple[int, ...], stride: tuple[int, ...], offset: int) -> None:
        self.tensor = torch.arange(4.0)
        self.arguments = (offset, size, stride, False, OrderedDict())

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, (
            torch.storage.TypedStorage(wrap_storage=self.tensor.untyped_storage(), dtype=torch.float32, _internal=True),
            *self.arguments,
        )


class Executes:
    """Unpickling it would create a file."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({str(self.witness)!r}, 'w').close()",)


def gadget_pickles(witness: Path) -> dict[str, bytes]:
    """Pickles that run code by different opcodes."""
    command = f"touch {witness}".encode()
    return {
        "global_reduce": b"\x80\x02cposix\nsystem\nX" + struct.pack("<I", len(command)) + command + b"\x85R.",
        "inst": b"(S'touch " + str(witness).encode() + b"'\niposix\nsystem\n.",
        "stack_global": pickle.dumps(Executes(witness), protocol=4),
        "protocol_2": pickle.dumps(Executes(witness), protocol=2),
        "protocol_5": pickle.dumps(Executes(witness), protocol=5),
        "build": b"\x80\x02cbuiltins\nobject\n)\x81}X\x0c\x00\x00\x00__setstate__cposix\nsystem\nsbX"
        + struct.pack("<I", len(command))
        + command
        + b"b.",
    }


def zipped_pickle(content: bytes, path: Path) -> Path:
    """A torch.save archive around any pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/byteorder", b"little")
        archive.writestr("archive/version", b"3\n")
    return path


def legacy_pickle(content: bytes, path: Path) -> Path:
    """torch's legacy format around any pickle."""
    stream = io.BytesIO()
    for header in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}):
        pickle.dump(header, stream, protocol=2)
    path.write_bytes(stream.getvalue() + content + pickle.dumps([], protocol=2))
    return path


def safetensors_file(header: object, data: bytes, path: Path, *, length: int | None = None) -> Path:
    """A file of the safetensors layout with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path
