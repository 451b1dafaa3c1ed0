"""Zips of directories that a stranger may send: shards with their index, and what torch.distributed writes."""

import io
import json
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

from tests.hostile.opcodes import (
    FALSE,
    NONE,
    ORDERED,
    archive,
    call,
    group,
    name,
    number,
    one,
    program,
    safetensors,
    storage,
    table,
    tensor,
    text,
)

Cases = dict[str, tuple[bytes, str | None]]
INDEX = "model.safetensors.index.json"


def zipped(members: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as opened:
        for member, content in members.items():
            opened.writestr(member, content)
    return stream.getvalue()


# --- shards and their index ----------------------------------------------------------------------------------------

SHARD = safetensors({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(8))


def sharded(index: object, compression: int = zipfile.ZIP_STORED, **files: bytes) -> bytes:
    """Of an index, or what stands in its place, and the shards ``a``, ``b``, ..."""
    raw = index if isinstance(index, bytes) else json.dumps(index).encode()
    return zipped({INDEX: raw, **{f"{key}.safetensors": content for key, content in files.items()}}, compression)


def places(*shards: str, **named: str) -> dict[str, Any]:
    return {"weight_map": {**{f"w{number}" if number else "w": shard for number, shard in enumerate(shards)}, **named}}


def deflated_among_many() -> bytes:
    """Of 300 deflated shards among 30,000 files of nothing."""
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    held = {f"s{n}": safetensors({f"w{n}": entry}, bytes(8)) for n in range(300)}
    index = {"weight_map": {f"w{n}": f"s{n}.safetensors" for n in range(300)}}
    named = {f"{key}.safetensors": content for key, content in held.items()}
    return zipped(
        {INDEX: json.dumps(index).encode(), **named, **{f"{n:x}": b"" for n in range(30_000)}}, zipfile.ZIP_DEFLATED
    )


def shards() -> Cases:
    mapped = places("a.safetensors")
    deflated = sharded(mapped, zipfile.ZIP_DEFLATED, a=SHARD)
    corrupt: dict[str, bytes] = {
        "up": sharded(places("../a.safetensors"), a=SHARD),
        "absolute": sharded(places("/etc/passwd"), a=SHARD),
        "backslash": sharded(places("..\\a.safetensors"), a=SHARD),
        "unnamed": sharded(places(""), a=SHARD),
        "missing": sharded(places("b.safetensors"), a=SHARD),
        "elsewhere": sharded(places("a.safetensors", "a.safetensors"), a=SHARD),
        "up-encoded": sharded(places("%2e%2e/a.safetensors"), a=SHARD),
        "elsewhere-by-uri": sharded(places("https://169.254.169.254/a.safetensors"), a=SHARD),
        "current": sharded(places("./a.safetensors"), a=SHARD),
        "nul-in-a-shard": sharded(places("a.safetensors\0"), a=SHARD),
        "twice-in-the-map": sharded(b'{"weight_map": {"w": "b.safetensors", "w": "a.safetensors"}}', a=SHARD),
        "map-twice": sharded(b'{"weight_map": {"x": "b"}, "weight_map": {"w": "a.safetensors"}}', a=SHARD),
        "digits": sharded(
            b'{"weight_map": {"w": "a.safetensors"}, "metadata": {"total_size": ' + b"9" * 100_000 + b"}}", a=SHARD
        ),
        "not-a-number": sharded(b'{"weight_map": {"w": "a.safetensors"}, "metadata": NaN}', a=SHARD),
        "map-list": sharded({"weight_map": ["w"]}, a=SHARD),
        "map-missing": sharded({"metadata": {}}, a=SHARD),
        "map-empty": sharded({"weight_map": {}}, a=SHARD),
        "map-numbers": sharded({"weight_map": {"w": 1}}, a=SHARD),
        "index-list": sharded([], a=SHARD),
        "index-cut": sharded(b'{"weight_map": {', a=SHARD),
        "index-deep": sharded(b'{"weight_map":' + b"[" * 200_000, a=SHARD),
        "index-not-utf-8": sharded(b'{"weight_map": {"\xff": "a.safetensors"}}', a=SHARD),
        "index-commas": sharded(b'{"weight_map": [' + b"0," * 3_000_000 + b"0]}", a=SHARD),
        "member-without-name": sharded(mapped, a=SHARD, unnamed=b"x").replace(b"unnamed", b"\0nnamed"),
        "two-indexes": zipped({INDEX: b"{}", f"x/{INDEX}": b"{}"}),
        "deflated-damaged": deflated.replace(SHARD[:1], SHARD[:1])[:-200] + deflated[-190:],
        "bzip2": sharded(mapped, zipfile.ZIP_BZIP2, a=SHARD),
        "lzma": sharded(mapped, zipfile.ZIP_LZMA, a=SHARD),
    }
    cases: Cases = {key: (content, "corrupt_checkpoint") for key, content in corrupt.items()}
    many = {f"s{n}": SHARD for n in range(1_001)}
    return cases | {
        "good": (sharded(mapped, a=SHARD), None),
        "deflated": (deflated, None),
        "deflated-among-many": (deflated_among_many(), None),
        "nul": (sharded(places(**{"a\0": "a.safetensors"}), a=SHARD), "unsupported_tensor"),
        "surrogate": (sharded(b'{"weight_map": {"\\ud800": "a.safetensors"}}', a=SHARD), "unsupported_tensor"),
        "long-name": (sharded(places(**{"k" * 2_000: "a.safetensors"}), a=SHARD), "unsupported_tensor"),
        "index-large": (sharded(b'{"weight_map": {' + b" " * (33 << 20) + b"}}", a=SHARD), "payload_too_large"),
        "many-shards": (
            sharded({"weight_map": {f"w{n}": f"s{n}.safetensors" for n in range(1_001)}}, **many),
            "payload_too_large",
        ),
        "many-names": (
            sharded({"weight_map": {f"w{n}": "a.safetensors" for n in range(100_001)}}, a=SHARD),
            "corrupt_checkpoint",
        ),
        "bomb": (sharded(mapped, zipfile.ZIP_DEFLATED, a=SHARD, b=bytes(200 << 20)), "payload_too_large"),
        "index-as-shard": (sharded(places(INDEX), a=SHARD), "unsupported_format"),
        "directory-as-shard": (sharded(mapped, a=sharded(mapped, a=SHARD)), "unsupported_format"),
        "page-as-shard": (sharded(mapped, a=b"<!DOCTYPE html>" * 9), "unsupported_format"),
        "nothing-as-shard": (sharded(mapped, a=b""), "empty_file"),
        "gadget-as-shard": (
            sharded(mapped, a=archive(program(call(name("posix", "system"), text("id"))))),
            "unsafe_checkpoint",
        ),
        "uninitialised-as-shard": (
            sharded(mapped, a=archive(one(call(name("torch", "Tensor"), number(64))))),
            "unsafe_checkpoint",
        ),
        "script-as-shard": (
            sharded(mapped, a=zipped({"m/constants.pkl": b"", "m/code/x.py": b""})),
            "unsupported_format",
        ),
    }


# --- torch.distributed.checkpoint ----------------------------------------------------------------------------------

_PLACE = "torch.distributed.checkpoint"


def made(kind: str, **state: bytes) -> bytes:
    """An object of one of its classes, with that state."""
    module, _, attribute = kind.rpartition(".")
    members = table(*((text(key), value) for key, value in state.items()))
    return name(f"{_PLACE}.{module}", attribute) + b")\x81" + members + b"b"


def described(size: bytes) -> bytes:
    return made("metadata.TensorStorageMetadata", size=size, chunks=b"]")


def placed(
    key: str, path: str = "0.distcp", offset: int = 0, length: int = 0, at: bytes | None = None, more: bytes = NONE
) -> tuple[bytes, bytes]:
    index = made("metadata.MetadataIndex", fqn=text(key), offset=at or group(number(0)), index=number(0))
    info = made(
        "filesystem._StorageInfo",
        relative_path=text(path),
        offset=number(offset),
        length=number(length),
        transform_descriptors=more,
    )
    return index, info


def metadata(entries: Mapping[str, bytes], *storage_data: tuple[bytes, bytes], paths: bytes = NONE) -> bytes:
    return program(
        made(
            "metadata.Metadata",
            state_dict_metadata=table(*((text(key), entry) for key, entry in entries.items())),
            planner_data=paths,
            storage_data=table(*storage_data),
        )
    )


CHUNK = archive(program(tensor()))
FOUR = group(number(4))


def distributed(described_as: bytes, chunk: bytes = CHUNK) -> bytes:
    return zipped({".metadata": described_as, "0.distcp": chunk})


def _whole(key: str = "w", size: bytes = FOUR, **place: Any) -> bytes:
    place = {"length": len(CHUNK), **place}
    return distributed(metadata({key: described(size)}, placed(key, **place)))


def _two(first: bytes, second: bytes, size: bytes) -> bytes:
    """A tensor of two parts of four elements, at these offsets."""
    parts = (
        placed("w", length=len(CHUNK), at=first),
        placed("w", offset=len(CHUNK), length=len(CHUNK), at=second),
    )
    return distributed(metadata({"w": described(size)}, *parts), CHUNK + CHUNK)


def _repeated(names: int) -> bytes:
    """Many tensors that are all the same part, whose pickle is long."""
    dear = archive(program(b"(" + b"N" * 1_000_000 + b"t0" + tensor()))
    entries = {f"w{n}": described(FOUR) for n in range(names)}
    return distributed(metadata(entries, *(placed(key, length=len(dear)) for key in entries)), dear)


def _collision() -> bytes:
    entries = {key: described(FOUR) for key in ("a", "b")}
    paths = table(
        (text("a"), group(text("x"))),
        (text("b"), group(text("x"), text("y"))),
    )
    parts = (placed("a", length=len(CHUNK)), placed("b", offset=len(CHUNK), length=len(CHUNK)))
    return distributed(metadata(entries, *parts, paths=paths), CHUNK + CHUNK)


def _named_by_number() -> bytes:
    entries = table((number(7), described(FOUR)))
    place = table(placed("w", length=len(CHUNK)))
    return program(made("metadata.Metadata", state_dict_metadata=entries, planner_data=NONE, storage_data=place))


def distributions() -> Cases:
    corrupt: dict[str, bytes] = {
        "offset-number": _whole(at=number(5)),
        "offset-list-of-texts": _whole(at=b"(" + text("0") + b"l"),
        "key-number": distributed(_named_by_number()),
        "empty": distributed(b""),
        "number": distributed(program(number(1))),
        "plain-dict": distributed(program(table((text("state_dict_metadata"), table())))),
        "no-places": distributed(program(made("metadata.Metadata", state_dict_metadata=table(), storage_data=NONE))),
        "no-parts": distributed(metadata({"w": described(FOUR)})),
        "path-up": _whole(path="../../../etc/passwd"),
        "path-absolute": _whole(path="/etc/passwd"),
        "path-missing": _whole(path="1.distcp"),
        "offset-negative": _whole(offset=-1),
        "offset-beyond": _whole(offset=1 << 40),
        "offset-enormous": _whole(offset=1 << 70),
        "length-beyond": _whole(length=1 << 40),
        "length-negative": _whole(length=-len(CHUNK)),
        "length-short": _whole(length=len(CHUNK) // 2),
        "size-larger": _whole(size=group(number(8))),
        "size-text": _whole(size=group(text("4"))),
        "size-negative": _whole(size=group(number(-4))),
        "size-missing": _whole(size=NONE),
        "overlapping-parts": _two(group(number(0)), group(number(2)), group(number(6))),
        "parts-apart": _two(group(number(0)), group(number(8)), group(number(12))),
        "same-part-twice": _two(group(number(0)), group(number(0)), group(number(8))),
        "compressed-part": _whole(more=b"]" + text("zstd") + b"a"),
        "part-of-many": _repeated(50),
        "tensor-in-a-tensor": _collision(),
        "part-no-tensor": distributed(
            metadata({"w": described(FOUR)}, placed("w", length=len(archive(one(tensor()))))), archive(one(tensor()))
        ),
        "key-no-index": distributed(
            program(
                made(
                    "metadata.Metadata",
                    state_dict_metadata=table((text("w"), described(FOUR))),
                    storage_data=table((text("w"), NONE)),
                )
            )
        ),
        "storage-short": distributed(
            metadata({"w": described(FOUR)}, placed("w", length=len(archive(program(tensor()), {"0": bytes(8)})))),
            archive(program(tensor()), {"0": bytes(8)}),
        ),
    }
    cases: Cases = {key: (content, "corrupt_checkpoint") for key, content in corrupt.items()}
    gadget = archive(program(call(name("posix", "system"), text("id"))))
    return cases | {
        "good": (_whole(), None),
        "two-parts": (_two(group(number(0)), group(number(4)), group(number(8))), None),
        "gadget": (distributed(program(call(name("posix", "system"), text("id")))), "unsafe_checkpoint"),
        "class-of-torch": (
            distributed(program(name(f"{_PLACE}.filesystem", "FileSystemReader") + b")\x81")),
            "unsafe_checkpoint",
        ),
        "gadget-in-a-part": (
            distributed(metadata({"w": described(FOUR)}, placed("w", length=len(gadget))), gadget),
            "unsafe_checkpoint",
        ),
        "name-nul": (_whole("a\0b"), "unsupported_tensor"),
        "name-long": (_whole("k" * 2_000), "unsupported_tensor"),
        "nothing": (distributed(metadata({})), "no_state_dict"),
        "quantized-part": (
            distributed(
                metadata({"w": described(FOUR)}, placed("w", length=len(_quantized()))),
                _quantized(),
            ),
            "unsupported_tensor",
        ),
    }


def _quantized() -> bytes:
    rebuild = name("torch._utils", "_rebuild_qtensor")
    place = (storage(kind="QInt8Storage", numel=16), number(0), FOUR, group(number(1)))
    return archive(program(call(rebuild, *place, NONE, FALSE, ORDERED)), {"0": struct.pack("<16b", *range(16))})
