"""Pickles written opcode by opcode, and the containers of torch.save around them."""

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Mapping

PROTOCOL = b"\x80\x02"
NONE, TRUE, FALSE = b"N", b"\x88", b"\x89"
MAGIC = 0x1950A86A20F9469CFC6C


def text(value: str | bytes) -> bytes:
    raw = value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def group(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def name(module: str, attribute: str) -> bytes:
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


def stacked(module: str, attribute: str) -> bytes:
    return text(module) + text(attribute) + b"\x93"


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + group(*arguments) + b"R"


def table(*pairs: tuple[bytes, bytes]) -> bytes:
    return b"}(" + b"".join(key + value for key, value in pairs) + b"u"


ORDERED = name("collections", "OrderedDict") + b")R"


def storage(key: str = "0", numel: int = 4, kind: str = "FloatStorage", *, legacy: bool = False) -> bytes:
    view = (NONE,) if legacy else ()
    parts = (text("storage"), name("torch", kind), text(key), text("cpu"), number(numel), *view)
    return group(*parts) + b"Q"


def tensor(
    memory: bytes | None = None,
    offset: int = 0,
    size: tuple[int, ...] = (4,),
    stride: tuple[int, ...] = (1,),
    function: str = "_rebuild_tensor_v2",
) -> bytes:
    place = (memory or storage(), number(offset), group(*map(number, size)), group(*map(number, stride)))
    return call(name("torch._utils", function), *place, FALSE, ORDERED)


def program(body: bytes) -> bytes:
    return PROTOCOL + body + b"."


def one(value: bytes, key: str | bytes = "w") -> bytes:
    """A pickle of {key: value}."""
    return program(table((text(key), value)))


FOUR = {"0": struct.pack("<4f", 1, 2, 3, 4)}


def archive(
    pickled: bytes | None,
    records: Mapping[str, bytes] = FOUR,
    *,
    root: str = "archive/",
    byteorder: bytes | None = b"little",
    compression: int = zipfile.ZIP_STORED,
    extra: Mapping[str, bytes] | None = None,
) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as opened:
        if pickled is not None:
            opened.writestr(f"{root}data.pkl", pickled)
        if byteorder is not None:
            opened.writestr(f"{root}byteorder", byteorder)
        for key, content in records.items():
            opened.writestr(f"{root}data/{key}", content)
        opened.writestr(f"{root}version", b"3\n")
        for key, content in (extra or {}).items():
            opened.writestr(key, content)
    return stream.getvalue()


def legacy(
    pickled: bytes, storages: Mapping[str, tuple[int, bytes]] | None = None, keys: object = None, magic: int = MAGIC
) -> bytes:
    head = b"".join(pickle.dumps(part, protocol=2) for part in (magic, 1001, {"little_endian": True}))
    listed = pickle.dumps(list(storages or {}) if keys is None else keys, protocol=2)
    return (
        head + pickled + listed + b"".join(struct.pack("<q", numel) + raw for numel, raw in (storages or {}).values())
    )


def safetensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data
