"""Files in which one object is in many places, so that reading it at each, hashing or printing it never ends."""

from tests.hostile.directories import CHUNK, FOUR, described, distributed, made, metadata, placed
from tests.hostile.opcodes import (
    FALSE,
    NONE,
    ORDERED,
    archive,
    call,
    group,
    name,
    number,
    program,
    storage,
    table,
    tensor,
    text,
)

Cases = dict[str, tuple[bytes, str | None]]

PRIME = (1 << 61) - 1
"""Numbers that differ by it have one and the same hash in CPython."""
STATE = (text("state_dict"), table((text("weight"), tensor())))


def kept(place: int, value: bytes) -> bytes:
    """Make it, keep it in the memo, and take it off the stack."""
    return value + b"r" + place.to_bytes(4, "little") + b"0"


def again(place: int) -> bytes:
    return b"j" + place.to_bytes(4, "little")


def items(count: int, item: bytes = NONE) -> bytes:
    """A list."""
    return b"(" + item * count + b"l"


def nested(levels: int, first: int = 100) -> bytes:
    """Leave lists in the memo of which each holds the one before twice."""
    lists = (kept(first + level, b"(" + again(first + level - 1) * 2 + b"l") for level in range(1, levels + 1))
    return kept(first, b"]") + b"".join(lists)


def _many(count: int, value: bytes) -> bytes:
    """A dict of as many keys with the same value."""
    return table(*((text(f"{key:x}"), value) for key in range(count)))


def _below(fan: int, depth: int) -> bytes:
    """Leave dicts in the memo, at 0 to ``depth``, that have each the one before under ``fan`` keys."""
    return kept(0, b"}") + b"".join(kept(level, _many(fan, again(level - 1))) for level in range(1, depth + 1))


def _called(function: bytes, shared: bytes, times: int) -> bytes:
    """A state dict after a call made over and over with the same arguments, a tuple."""
    return archive(program(kept(1, shared) + kept(2, function) + (again(2) + again(1) + b"R0") * times + table(STATE)))


def _storages(count: int) -> bytes:
    """Declared under numbers whose hashes are the same."""
    parts = (text("storage"), name("torch", "FloatStorage"))
    keys = (group(*parts, number(step * PRIME), text("cpu"), number(4)) + b"Q0" for step in range(1, count))
    return archive(program(b"".join(keys) + table(STATE)))


def _strides(count: int) -> bytes:
    """One element each, with strides that tuples hash alike: only a table of such tuples takes long."""
    views = ((text(f"w{n}"), _one_element(first, second)) for n, (first, second) in enumerate(_alike(count)))
    return archive(program(kept(1, storage()) + table(STATE, (text("more"), table(*views)))))


def _one_element(*strides: int) -> bytes:
    rebuild = name("torch._utils", "_rebuild_tensor_v2")
    return call(rebuild, again(1), number(0), group(*[number(1)] * 2), group(*map(number, strides)), FALSE, ORDERED)


def _alike(count: int) -> list[tuple[int, int]]:
    """Pairs of one hash: CPython's tuplehash (Objects/tupleobject.c, after xxHash) solved for the second number."""
    mask, first, second, third = (1 << 64) - 1, 11400714785074694791, 14029467366897019727, 2870177450012600261
    wanted, pairs, low = 12345 * second & mask, list[tuple[int, int]](), 0
    while len(pairs) < count:
        lane = (third + low * second) & mask
        lane = ((lane << 31 | lane >> 33) & mask) * first & mask
        high = (wanted - lane) * pow(second, -1, 1 << 64) & mask
        if high < PRIME:
            pairs.append((low, high))
        low += 1
    return pairs


def sharing() -> Cases:
    long = kept(1, text("a" * (1 << 20)))
    rebuild, state = name("torch._utils", "_rebuild_tensor_v2"), table(STATE)
    from_type = name("torch._tensor", "_rebuild_from_type_v2")
    whole = {"w": described(FOUR)}, placed("w", length=len(CHUNK))
    view = group(storage(), number(0), items(200_000, number(1)), items(200_000, number(1)), FALSE)
    names = kept(1, items(50_000, text("cat")))
    named = table(*((text(f"{n:x}"), table((text("names"), again(1)))) for n in range(20_000)))
    versions = _many(50_000, table((text("version"), number(1))))
    with_metadata = name("collections", "OrderedDict") + b")R(" + text("weight") + tensor() + b"u" + again(1) + b"b"
    many = {
        "counted": _called(name("collections", "Counter"), _many(100_000, NONE) + b"\x85", 50_000),
        "arguments": _called(rebuild, group(storage(), number(0), FOUR, FOUR, *[NONE] * 300_000), 100_000),
        "persistent": archive(program(kept(1, _storage_and(300_000)) + (again(1) + b"Q0") * 100_000 + state)),
        "sizes": _called(name("torch", "Size"), items(1_000_000) + b"\x85", 100_000),
        "short-sizes": _called(name("torch", "Size"), items(20_000, b"K\x01") + b"\x85", 100_000),
        "texts": _called(name("_codecs", "encode"), group(text("a" * (10 << 20)), text("latin1")), 200_000),
        "ordered": _called(name("collections", "OrderedDict"), _many(50_000, NONE) + b"\x85", 100_000),
    }
    corrupt = {
        "views": _called(rebuild, group(storage(), number(0), *[items(500_000, b"K\x01")] * 2, FALSE, ORDERED), 10),
        "views-of-a-type": _called(from_type, group(rebuild, name("torch", "Tensor"), view, NONE), 100_000),
        "storages-of-one-hash": _storages(50_000),
        "distributed-offsets": distributed(_placed_by(group(*[number(1)] * 300_000), 10_000)),
        "distributed-expanded": _expanded(10_000_000, 2),
        "distributed-size-nested": distributed(_described_by(nested(40), group(again(140)))),
    }
    read = {
        "made": archive(
            program(
                kept(1, call(name("argparse", "Namespace"), *[NONE] * 50_000))
                + table(STATE, (text("l"), items(500_000, again(1))))
            )
        ),
        "layers": archive(program(kept(1, _many(50_000, NONE)) + table(STATE, (text("l"), items(500_000, again(1)))))),
        "state-dicts": archive(program(kept(1, tensor()) + kept(2, _many(200, again(1))) + _many(50_000, again(2)))),
        "versions": archive(program(kept(1, table((text("_metadata"), versions))) + _many(2_000, with_metadata))),
        "key-nested": archive(program(nested(40) + table((again(140) + b"\x85", NONE), (text("weight"), tensor())))),
        "class-names": archive(program(names + table(STATE, (text("hyper"), named)))),
        "class-names-below": archive(program(_below(250, 5) + table(STATE, (text("hyper"), again(5))))),
        "class-index-list": archive(program(table(STATE, (text("class_to_idx"), table((text("cat"), b"]")))))),
        "class-index-nested": archive(
            program(kept(50, b")") + b"".join(kept(51 + n, again(50 + n) * 2 + b"\x86") for n in range(60))
                    + table(STATE, (text("class_to_idx"), table((text("cat"), again(110))))))
        ),
        "key-bytes": archive(
            program(kept(1, b"B" + (4 << 20).to_bytes(4, "little") + bytes(4 << 20))
                    + table(STATE, (text("id2label"), table(*[(again(1), text("cat"))] * 20_000))))
        ),
        "distributed-path-nested": distributed(program(nested(40) + metadata(*whole, paths=_path(again(140)))[2:-1])),
        "distributed-path-deep": distributed(metadata(*whole, paths=_path(b"]" + b"\x85" * 100_000))),
        "distributed-path-number": distributed(metadata(*whole, paths=_path(number(1 << 62)))),
    }  # fmt: skip
    return {
        **{key: (content, "payload_too_large") for key, content in many.items()},
        **{key: (content, "corrupt_checkpoint") for key, content in corrupt.items()},
        **{key: (content, None) for key, content in read.items()},
        "size-alone": (
            archive(program(kept(3, items(1_000_000)) + call(name("torch", "Size"), again(3)))),
            "no_state_dict",
        ),
        "strides-of-one-hash": (_strides(20_000), "ambiguous_checkpoint"),
        "distributed-paths": (
            distributed(metadata({}, *(placed(f"w{n}", "a" * 2_000 + str(n)) for n in range(2)))),
            "unsupported_tensor",
        ),
        "long-key": (archive(program(long + table((again(1), NONE)))), "unsupported_tensor"),
    }


def _storage_and(more: int) -> bytes:
    known = (text("storage"), name("torch", "FloatStorage"), text("0"), text("cpu"), number(4))
    return group(*known, *[NONE] * more)


def _expanded(elements: int, parts: int) -> bytes:
    """A tensor of parts each of which is one element, told as many by a stride of 0."""
    part = archive(program(tensor(size=(elements,), stride=(0,))))
    places = (placed("w", offset=n * len(part), length=len(part), at=group(number(n * elements))) for n in range(parts))
    return distributed(metadata({"w": described(group(number(parts * elements)))}, *places), part * parts)


def _path(part: bytes) -> bytes:
    return table((text("w"), part + b"\x85"))


def _described_by(before: bytes, size: bytes) -> bytes:
    entries = table((text("w"), described(size)))
    places = table(placed("w", length=len(CHUNK)))
    return program(before + made("metadata.Metadata", state_dict_metadata=entries, storage_data=places))


def _placed_by(offsets: bytes, chunks: int) -> bytes:
    places = table(*(placed("w", offset=n, length=1, at=again(9)) for n in range(chunks)))
    entries = table((text("w"), described(FOUR)))
    return program(kept(9, offsets) + made("metadata.Metadata", state_dict_metadata=entries, storage_data=places))
