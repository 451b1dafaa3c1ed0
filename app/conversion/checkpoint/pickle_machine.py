"""An interpreter of pickle opcodes that runs nothing and whose work is linear in the bytes it is given.

It reads protocols 0 to 5 (Lib/pickletools.py) without persistent ids in text, extension codes and out-of-band buffers,
none of which torch.save writes.
"""

import codecs
import struct
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from dataclasses import dataclass
from mmap import mmap
from typing import Any

from app.conversion.checkpoint.names import MAX_NAME, check_key, shown
from app.conversion.checkpoint.pickle_values import Globals, Made, Name, Ordered, OtherKey, Vocabulary
from app.domain.errors import CorruptCheckpoint, PayloadTooLarge, UnsafeCheckpoint

MAX_PICKLE = 64 << 20
"""Bytes of one pickle: 100,000 tensors with their optimizer state take about 30 MB."""
MAX_OPCODES = 5_000_000
"""Opcodes of one pickle: a tensor takes about 20."""
MAX_COPIED = 5_000_000
"""Items that calls of one pickle may copy out of their arguments, where it has as many bytes: what a pickle shares, its
reader must not take apart over and over."""
_FREE = 8
"""Items that any argument may have besides, as shapes and argument lists do."""
_CHARACTERS = 16
"""Characters of a text whose copy costs what that of one item does."""
_MAX_INTEGER = 1024
"""Bytes of an integer; arithmetic and hashes of longer ones are not linear."""
_MAX_UNKNOWN = 1000

Persistent = Callable[[object], object]
"""What a persistent id stands for. Raises RecastError for an id that the format does not have."""


@dataclass(frozen=True)
class Pickle:
    value: Any
    end: int
    """Where the bytes after the pickle's STOP begin."""


def read_pickle(
    data: bytes | mmap, vocabulary: Vocabulary, found: Globals, *, persistent: Persistent | None = None, start: int = 0
) -> Pickle:
    """The value of the pickle at ``start``. Globals are added to ``found``, the unknown ones too.

    Raises CorruptCheckpoint for what is no whole pickle, PayloadTooLarge beyond the bounds above, UnsupportedTensor for
    keys that cannot name a tensor, UnsafeCheckpoint for what no reading without running it could give, and what the
    vocabulary's rules and ``persistent`` raise.
    """
    machine = _Machine(data, start, vocabulary, found, persistent)
    try:
        return Pickle(machine.run(), machine.at)
    except (LookupError, ValueError, TypeError, struct.error, OverflowError) as error:
        raise CorruptCheckpoint(
            f"The pickle is damaged at byte {machine.at}: {type(error).__name__}.",
            hint="Load it with torch.load(path, weights_only=True) where it was made; if that works, send it again.",
        ) from error


class _Machine:
    def __init__(
        self, data: bytes | mmap, at: int, vocabulary: Vocabulary, found: Globals, persistent: Persistent | None
    ) -> None:
        self.data = data
        self.start = self.at = at
        self.end = min(len(data), at + MAX_PICKLE)
        self.vocabulary = vocabulary
        self.found = found
        self.persistent = persistent
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        """Stacks beneath each MARK."""
        self.memo: dict[int, Any] = {}
        self.copied = 0

    def run(self) -> object:
        for _ in range(MAX_OPCODES):
            if self.at >= self.end:
                raise self._cut_off()
            opcode = self.data[self.at]
            self.at += 1
            if opcode == _STOP:
                return self.stack.pop()
            step = _STEPS.get(opcode)
            if step is None:
                raise self._refused(opcode)
            step(self)
        raise PayloadTooLarge(f"The pickle has more than {MAX_OPCODES:,} opcodes.", hint=_WEIGHTS_ALONE)

    def _cut_off(self) -> Exception:
        if self.end < len(self.data):
            return PayloadTooLarge(f"The pickle is longer than {MAX_PICKLE >> 20} MiB.", hint=_WEIGHTS_ALONE)
        return CorruptCheckpoint("The pickle has no end: the file was cut off.")

    def _refused(self, opcode: int) -> Exception:
        if opcode in _UNUSED:
            return UnsafeCheckpoint(f"The pickle uses {_UNUSED[opcode]}, which no checkpoint needs.", unsafe_globals=[])
        return CorruptCheckpoint(f"Byte {self.at - 1} of the pickle, 0x{opcode:02x}, is no opcode.")

    # --- bytes -----------------------------------------------------------------------------------------------------

    def take(self, count: int) -> bytes:
        if count > self.end - self.at:
            raise self._cut_off()
        taken = self.data[self.at : self.at + count]
        self.at += count
        return taken

    def number(self, form: struct.Struct) -> Any:
        return form.unpack(self.take(form.size))[0]

    def skip(self, count: int) -> None:
        self.take(count)

    def line(self) -> bytes:
        stop = self.data.find(b"\n", self.at, self.end)
        if stop < 0:
            raise self._cut_off()
        taken = self.data[self.at : stop]
        self.at = stop + 1
        return taken

    def integer(self, length: int) -> int:
        if length > _MAX_INTEGER:
            raise CorruptCheckpoint(f"The pickle holds an integer of {length} bytes.")
        return int.from_bytes(self.take(length), "little", signed=True)

    # --- the stack -------------------------------------------------------------------------------------------------

    def push(self, value: object) -> None:
        self.stack.append(value)

    def pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def drop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def drop_marked(self) -> None:
        self.pop_mark()

    def remember(self, place: int) -> None:
        if not 0 <= place <= MAX_OPCODES:
            raise CorruptCheckpoint(f"The pickle's memo has no place {place}.")
        self.memo[place] = self.stack[-1]

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise IndexError
        self.stack[-count:] = [tuple(self.stack[-count:])]

    # --- containers ------------------------------------------------------------------------------------------------

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Made):
            raise TypeError

    def set_items(self, items: list[Any]) -> None:
        if len(items) % 2:
            raise ValueError
        target = self.stack[-1]
        if isinstance(target, dict):
            for place in range(0, len(items), 2):
                key = items[place]
                target[check_key(key) if isinstance(key, str) else OtherKey(key)] = items[place + 1]
        elif not isinstance(target, Made):
            raise TypeError

    def count_copies(self, arguments: object) -> None:
        """Count what a rule may copy: its arguments' items, and those of a call within the call. Raises
        PayloadTooLarge before one item too many is looked at.
        """
        self._count(arguments)
        for argument in arguments if isinstance(arguments, tuple) else ():
            self._count(argument)
            for inner in argument if isinstance(argument, tuple) else ():
                self._count(inner)

    def _count(self, value: object) -> None:
        if isinstance(value, (tuple, list, dict)):
            self.copied += max(len(value) - _FREE, 0)
        elif isinstance(value, str):
            self.copied += len(value) // _CHARACTERS
        if self.copied > min(MAX_COPIED, self.at - self.start):
            raise PayloadTooLarge("The pickle has the same items copied over and over.", hint=_WEIGHTS_ALONE)

    # --- globals and calls -----------------------------------------------------------------------------------------

    def name(self, module: object, attribute: object) -> None:
        if not (isinstance(module, str) and isinstance(attribute, str)):
            raise UnsafeCheckpoint("The pickle makes up the name of a global as it goes.", unsafe_globals=["?"])
        if len(module) + len(attribute) > MAX_NAME:
            raise UnsafeCheckpoint(
                f"The pickle names a global by {len(module) + len(attribute):,} characters.", unsafe_globals=[]
            )
        module, attribute = NAME_MAPPING.get((module, attribute), (module, attribute))
        dotted = f"{IMPORT_MAPPING.get(module, module)}.{attribute}"
        if not self.vocabulary.knows(dotted) and len(self.found.unknown) < _MAX_UNKNOWN:
            self.found.unknown[shown(dotted)] = None
        self.push(Name(dotted))

    def call(self, called: object, arguments: object) -> None:
        if not isinstance(called, Name) or not isinstance(arguments, tuple):
            raise UnsafeCheckpoint("The pickle calls what is no global.", unsafe_globals=[])
        rule = self.vocabulary.rules.get(called.dotted)
        if rule is not None:
            self.count_copies(arguments)
            self.push(rule(arguments))
        elif called.dotted in self.vocabulary.values:
            raise UnsafeCheckpoint(
                f"The pickle calls {called.dotted}, which takes no values from the file.", unsafe_globals=[]
            )
        else:
            self.found.unread[shown(called.dotted)] = None
            self.push(Made(called.dotted, arguments))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, (Made, Ordered)):
            target.state = state
        elif isinstance(target, (Name, dict, list, tuple, str, bytes, int, float, type(None))):
            raise UnsafeCheckpoint(
                f"The pickle gives a state to a {type(target).__name__.lower()}, which has none.", unsafe_globals=[]
            )  # tensors and storages have attributes that no reading needs

    def look_up(self) -> None:
        identifier = self.stack.pop()
        if self.persistent is None:
            raise UnsafeCheckpoint("The pickle refers to something outside of it.", unsafe_globals=[])
        self.count_copies(identifier)
        self.push(self.persistent(identifier))


def _object(machine: _Machine) -> None:
    called, *arguments = machine.pop_mark()
    machine.call(called, tuple(arguments))


def _instance(machine: _Machine) -> None:
    module, attribute = machine.line().decode(), machine.line().decode()
    arguments = tuple(machine.pop_mark())
    machine.name(module, attribute)
    machine.call(machine.stack.pop(), arguments)


def _new_with_keywords(machine: _Machine) -> None:
    _, arguments, called = machine.stack.pop(), machine.stack.pop(), machine.stack.pop()
    machine.call(called, arguments)


def _reduce(machine: _Machine) -> None:
    arguments, called = machine.stack.pop(), machine.stack.pop()
    machine.call(called, arguments)


def _stack_global(machine: _Machine) -> None:
    attribute, module = machine.stack.pop(), machine.stack.pop()
    machine.name(module, attribute)


def _pairs(machine: _Machine) -> None:
    items = machine.pop_mark()
    machine.push({})
    machine.set_items(items)


def _add_to_set(machine: _Machine) -> None:
    machine.pop_mark()
    if not isinstance(machine.stack[-1], Made):
        raise TypeError


def _text(machine: _Machine, length: int) -> None:
    machine.push(str(machine.take(length), "utf-8", "surrogatepass"))


def _digits(machine: _Machine) -> str:
    line = machine.line()
    if len(line) > MAX_NAME:
        raise CorruptCheckpoint(f"The pickle holds a number of {len(line):,} digits.")
    return line.decode("ascii")


def _integer_line(machine: _Machine) -> None:
    digits = _digits(machine)
    machine.push(digits == "01" if digits in ("00", "01") else int(digits.rstrip("L")))


def _python_2_string(machine: _Machine, string: bytes) -> None:
    """Python 2 wrote names as bytes; torch.load reads them as UTF-8."""
    try:
        machine.push(string.decode("utf-8"))
    except UnicodeDecodeError:
        machine.push(string)


_STOP = ord(b".")
_U8, _U16, _I32, _U32, _U64, _F64 = (struct.Struct(form) for form in ("<B", "<H", "<i", "<I", "<Q", ">d"))
_WEIGHTS_ALONE = "Save the weights alone: torch.save(model.state_dict(), 'weights.pth')."
_UNUSED = {
    ord(b"P"): "a persistent id in text",
    0x82: "an extension code",
    0x83: "an extension code",
    0x84: "an extension code",
    0x97: "an out-of-band buffer",
    0x98: "an out-of-band buffer",
}

_STEPS: dict[int, Callable[[_Machine], None]] = {
    opcode[0]: step
    for opcode, step in {
        # the stack and the memo
        b"(": _Machine.mark,
        b"0": _Machine.drop,
        b"1": _Machine.drop_marked,
        b"2": lambda m: m.push(m.stack[-1]),
        b"p": lambda m: m.remember(int(_digits(m))),
        b"q": lambda m: m.remember(m.number(_U8)),
        b"r": lambda m: m.remember(m.number(_U32)),
        b"\x94": lambda m: m.remember(len(m.memo)),
        b"g": lambda m: m.push(m.memo[int(_digits(m))]),
        b"h": lambda m: m.push(m.memo[m.number(_U8)]),
        b"j": lambda m: m.push(m.memo[m.number(_U32)]),
        b"\x80": lambda m: m.skip(1),
        b"\x95": lambda m: m.skip(8),
        # plain values
        b"N": lambda m: m.push(None),
        b"\x88": lambda m: m.push(True),
        b"\x89": lambda m: m.push(False),
        b"I": _integer_line,
        b"L": _integer_line,
        b"J": lambda m: m.push(m.number(_I32)),
        b"K": lambda m: m.push(m.number(_U8)),
        b"M": lambda m: m.push(m.number(_U16)),
        b"\x8a": lambda m: m.push(m.integer(m.number(_U8))),
        b"\x8b": lambda m: m.push(m.integer(m.number(_U32))),
        b"F": lambda m: m.push(float(_digits(m))),
        b"G": lambda m: m.push(m.number(_F64)),
        b"S": lambda m: _python_2_string(m, codecs.escape_decode(m.line()[1:-1])[0]),
        b"T": lambda m: _python_2_string(m, m.take(m.number(_U32))),
        b"U": lambda m: _python_2_string(m, m.take(m.number(_U8))),
        b"V": lambda m: m.push(str(m.line(), "raw-unicode-escape")),
        b"X": lambda m: _text(m, m.number(_U32)),
        b"\x8c": lambda m: _text(m, m.number(_U8)),
        b"\x8d": lambda m: _text(m, m.number(_U64)),
        b"B": lambda m: m.push(m.take(m.number(_U32))),
        b"C": lambda m: m.push(m.take(m.number(_U8))),
        b"\x8e": lambda m: m.push(m.take(m.number(_U64))),
        b"\x96": lambda m: m.push(m.take(m.number(_U64))),
        # containers
        b")": lambda m: m.push(()),
        b"t": lambda m: m.push(tuple(m.pop_mark())),
        b"\x85": lambda m: m.tuple_of(1),
        b"\x86": lambda m: m.tuple_of(2),
        b"\x87": lambda m: m.tuple_of(3),
        b"]": lambda m: m.push([]),
        b"l": lambda m: m.push(m.pop_mark()),
        b"a": lambda m: m.append([m.stack.pop()]),
        b"e": lambda m: m.append(m.pop_mark()),
        b"}": lambda m: m.push({}),
        b"d": _pairs,
        b"s": lambda m: m.set_items([m.stack.pop(), m.stack.pop()][::-1]),
        b"u": lambda m: m.set_items(m.pop_mark()),
        b"\x8f": lambda m: m.push(Made("builtins.set", ())),
        b"\x91": lambda m: m.push(Made("builtins.frozenset", (m.pop_mark(),))),
        b"\x90": _add_to_set,
        # globals, calls, persistent ids
        b"c": lambda m: m.name(m.line().decode(), m.line().decode()),
        b"\x93": _stack_global,
        b"R": _reduce,
        b"\x81": _reduce,  # NEWOBJ: cls.__new__(cls, *args)
        b"\x92": _new_with_keywords,
        b"i": _instance,
        b"o": _object,
        b"b": _Machine.build,
        b"Q": _Machine.look_up,
    }.items()
}
