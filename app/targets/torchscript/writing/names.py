"""Class names in a TorchScript archive, made independent of what the process compiled before.

torch gives a class that it compiles again the name ``__torch__.pkg.___torch_mangle_7.Class``, counting over the life of
the process, and keeps it in ``code/__torch__/pkg/___torch_mangle_7.py``; the first of its name it leaves plain. Here
every class and function is numbered in the order in which data.pkl, and then the code itself, refers to it. Temporaries
(``_4``) are counted over a file, so they are numbered anew in each function.
"""

import pickletools
import re
from collections.abc import Mapping
from itertools import count, pairwise

_QUALIFIED = re.compile(r"__torch__(?:\.\w+)+")
_MANGLE = re.compile(r"___torch_mangle_\d+")
_FUNCTION = re.compile(r"^(?= *def \w)", re.MULTILINE)
_TEMPORARY = re.compile(r"(?<![\w.\"'])_\d+\b")
_DEFINITION = re.compile(r"^(?=(?:class|def) \w)", re.MULTILINE)


def canonical_names(
    texts: Mapping[str, bytes], pickles: Mapping[str, bytes]
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The archive's code files and pickles, by path in the archive, under canonical names.

    Each definition gets a file of its own, as torch does for every class but the first of its name.
    """
    definitions = {name: text for path, content in texts.items() for name, text in _definitions(path, content.decode())}
    names: dict[str, str] = {}
    pending = [name for pickle in pickles.values() for name in _pickled_names(pickle)]
    pending += sorted(definitions)
    while pending:
        name = pending.pop(0)
        if name in definitions and name not in names:
            names[name] = _numbered(name, len(names))
            pending[:0] = _referred(definitions[name], definitions)
    renamed_texts = {_path(new): _renumbered(_renamed(definitions[old], names)).encode() for old, new in names.items()}
    return renamed_texts, {path: _renamed_pickle(pickle, names) for path, pickle in pickles.items()}


def _definitions(path: str, text: str) -> list[tuple[str, str]]:
    """Qualified name and source of each definition in one code file."""
    namespace = path.removeprefix("code/").removesuffix(".py").replace("/", ".")
    return [
        (f"{namespace}.{match.group(1)}", block.rstrip() + "\n")
        for block in _DEFINITION.split(text)
        if (match := re.match(r"(?:class|def) (\w+)", block))
    ]


def _numbered(name: str, number: int) -> str:
    parts = [part for part in name.split(".") if not _MANGLE.fullmatch(part)]
    return ".".join((*parts[:-1], f"___torch_mangle_{number}", parts[-1]))


def _path(name: str) -> str:
    return "code/" + name.rpartition(".")[0].replace(".", "/") + ".py"


def _referred(text: str, known: Mapping[str, str]) -> list[str]:
    return list(dict.fromkeys(name for match in _QUALIFIED.findall(text) if (name := _longest(match, known))))


def _longest(reference: str, known: Mapping[str, str]) -> str | None:
    """The known name that ``reference`` is or starts with: ``pkg.Color.RED`` refers to ``pkg.Color``."""
    while reference and reference not in known:
        reference = reference.rpartition(".")[0]
    return reference or None


def _renamed(text: str, names: Mapping[str, str]) -> str:
    def replace(match: re.Match[str]) -> str:
        known = _longest(match.group(), names)
        return match.group() if known is None else names[known] + match.group()[len(known) :]

    return _QUALIFIED.sub(replace, text)


def _renumbered(text: str) -> str:
    return "".join(_renumbered_function(part) for part in _FUNCTION.split(text))


def _renumbered_function(text: str) -> str:
    """A function with its temporaries numbered by first use; text that is no function is given back."""
    if not text.lstrip().startswith("def "):
        return text
    header, colon, body = text.partition(":\n")
    parameters = set(_TEMPORARY.findall(header))
    free = (f"_{number}" for number in count() if f"_{number}" not in parameters)
    numbers = {old: next(free) for old in dict.fromkeys(_TEMPORARY.findall(body)) if old not in parameters}
    return header + colon + _TEMPORARY.sub(lambda match: numbers.get(match.group(), match.group()), body)


def _pickled_names(pickle: bytes) -> list[str]:
    return [
        str(argument).replace(" ", ".") for opcode, argument, _ in pickletools.genops(pickle) if opcode.name == "GLOBAL"
    ]


def _renamed_pickle(pickle: bytes, names: Mapping[str, str]) -> bytes:
    """The pickle with renamed classes in its GLOBAL opcodes and in its strings, which hold types of containers."""
    parts: list[bytes] = []
    kept = 0
    operations = list(pickletools.genops(pickle))
    for (opcode, argument, position), (_, _, end) in pairwise(operations):
        replacement = _renamed_operation(opcode.name, argument, names)
        if replacement is not None and position is not None and end is not None:
            parts += [pickle[kept:position], replacement]
            kept = end
    return b"".join([*parts, pickle[kept:]])


def _renamed_operation(opcode: str, argument: object, names: Mapping[str, str]) -> bytes | None:
    text = str(argument)
    if opcode == "GLOBAL":
        new = names.get(text.replace(" ", "."))
        return None if new is None else f"c{new.rpartition('.')[0]}\n{new.rpartition('.')[2]}\n".encode()
    if opcode == "BINUNICODE" and "__torch__" in text:
        content = _renamed(text, names).encode()
        return b"X" + len(content).to_bytes(4, "little") + content
    return None
