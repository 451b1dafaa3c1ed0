"""Files in which one object is in many places, so that a reader which takes it apart at each never comes to an end."""

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
    text,
)
from tests.hostile.opcodes import tensor as rebuilt

Cases = dict[str, tuple[bytes, str | None]]

WEIGHTS = table((text("weight"), rebuilt()))


def kept(place: int) -> bytes:
    """Keep what was made last in the memo, and take it off the stack."""
    return b"r" + place.to_bytes(4, "little") + b"0"


def again(place: int) -> bytes:
    return b"j" + place.to_bytes(4, "little")


def items(count: int, item: bytes = NONE) -> bytes:
    """A list."""
    return b"(" + item * count + b"l"


def calls(function: bytes, arguments: bytes, count: int) -> bytes:
    """The same call over and over, of the same objects, whose results are thrown away."""
    return function + kept(1) + arguments + kept(2) + (again(1) + again(2) + b"R0") * count


def below(fan: int, depth: int) -> tuple[bytes, bytes]:
    """Dicts that have each the one below under ``fan`` keys; what makes them, and the topmost."""
    made = b"}" + kept(0)
    for level in range(1, depth + 1):
        made += table(*((text(f"k{number}"), again(level - 1)) for number in range(fan))) + kept(level)
    return made, again(depth)


def shared_objects() -> Cases:
    many = [f"{place:x}" for place in range(50_000)]
    nested, top = below(250, 5)
    doubled = b"]" + kept(0) + b"".join(b"(" + again(n) + again(n) + b"l" + kept(n + 1) for n in range(40)) + again(40)
    view = group(storage(), number(0), items(500_000, b"K\x01"), items(500_000, b"K\x01"), FALSE, ORDERED)
    metadata = table((text("_metadata"), table(*((text(key), table((text("version"), number(1)))) for key in many))))
    ordered = name("collections", "OrderedDict") + b")R"
    with_metadata = ordered + b"(" + text("weight") + rebuilt() + b"u" + again(1) + b"b"
    same = {
        "size": calls(name("torch", "Size"), items(1_000_000) + b"\x85", 100_000),
        "size-short": calls(name("torch", "Size"), items(20_000, b"K\x01") + b"\x85", 100_000),
        "text": calls(name("_codecs", "encode"), group(text("a" * (10 << 20)), text("latin1")), 200_000),
        "dict": calls(
            name("collections", "OrderedDict"), table(*((text(key), NONE) for key in many)) + b"\x85", 100_000
        ),
    }
    cases: Cases = {
        f"copied-{kind}": (archive(program(made + WEIGHTS)), "payload_too_large") for kind, made in same.items()
    }
    held = table((text("state_dict"), WEIGHTS), (text("hyper"), top))
    layers = table((text("s"), WEIGHTS), (text("l"), items(500_000, again(1))))
    return cases | {
        "class-names": (archive(program(nested + held)), None),
        "key": (archive(program(table((doubled + b"\x85", NONE), (text("weight"), rebuilt())))), None),
        "shape": (
            archive(program(calls(name("torch._utils", "_rebuild_tensor_v2"), view, 10) + WEIGHTS)),
            "corrupt_checkpoint",
        ),
        "layers": (archive(program(table(*((text(key), NONE) for key in many)) + kept(1) + layers)), None),
        "state-dicts": (
            archive(
                program(
                    rebuilt()
                    + kept(1)
                    + table(*((text(key), again(1)) for key in many[:200]))
                    + kept(2)
                    + table(*((text(f"m{key}"), again(2)) for key in many))
                )
            ),
            None,
        ),
        "versions": (
            archive(
                program(
                    metadata
                    + kept(1)
                    + table(
                        *((text(f"n{n}"), table((text(f"x{n}"), with_metadata))) for n in range(2_000)),
                    )
                )
            ),
            None,
        ),
        "call": (
            archive(program(items(1_000_000) + kept(3) + call(name("torch", "Size"), again(3)))),
            "no_state_dict",
        ),
    }
