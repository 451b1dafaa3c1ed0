"""Where the code of a TorchScript file uses its constants.

The code is printed one statement to a line, with operators nested as calls. A variable made of constants alone is not a
use yet: freezing moves such statements to the top. Its constants are used where the variable meets other values.
"""

import re
from collections.abc import Iterator, Mapping

from app.conversion.verification.artifact.onnx_tensors import StoredTensor
from app.conversion.verification.ledger.order import GraphUse

_CONSTANT = re.compile(r"\bCONSTANTS\.(c\d+)\b")
_VARIABLE = re.compile(r"(?<![\w.\"])([A-Za-z_]\w*)\b(?![\w.(\"])")
_ASSIGNMENT = re.compile(r"^\s*(\w+) = (.*)$")
_LOOP = re.compile(r"^\s*(?:for|while)\b")
_NAME = re.compile(r"(\w+)$")
_LITERALS = frozenset({"True", "False", "None", "in", "is", "not", "and", "or", "if", "else"})


def constant_uses(code: list[str], constants: Mapping[str, StoredTensor]) -> Iterator[GraphUse]:
    """Uses in the order of the text, by the function in whose argument list each stands; one node to a line."""
    node = 0
    for text in code:
        made: dict[str, list[StoredTensor]] = {}
        loops: list[int] = []
        for line in text.splitlines():
            node += 1
            indent = len(line) - len(line.lstrip())
            loops = [outer for outer in loops if outer < indent]
            repeats = bool(loops)
            if _LOOP.match(line):
                loops.append(indent)
            found = _operands(line, constants, made)
            assignment = _ASSIGNMENT.match(line)
            if assignment is not None and found and _is_closed(assignment[2], made):
                made[assignment[1]] = [stored for _, roots, _ in found for stored in roots]
                continue
            flat = [(place, stored, direct) for place, roots, direct in found for stored in roots]
            for position, (place, stored, direct) in enumerate(flat):
                axes = tuple(range(len(stored.dims))) if direct else None
                yield GraphUse(node, position, _operator(line, place), stored, axes, counted=False, repeats=repeats)


def _operands(
    line: str, constants: Mapping[str, StoredTensor], made: Mapping[str, list[StoredTensor]]
) -> list[tuple[int, list[StoredTensor], bool]]:
    """(place in the line, stored tensors, whether it is the constant itself) of everything made of constants."""
    direct = [(m.start(), [constants[m[1]]], True) for m in _CONSTANT.finditer(line) if m[1] in constants]
    named = [(m.start(), made[m[1]], False) for m in _VARIABLE.finditer(_right(line)) if m[1] in made]
    return sorted(direct + named, key=lambda operand: operand[0])


def _right(line: str) -> str:
    """The line with what it assigns to blanked out, so that places stay as they are."""
    assignment = _ASSIGNMENT.match(line)
    return line if assignment is None else " " * assignment.start(2) + assignment[2]


def _is_closed(expression: str, made: Mapping[str, list[StoredTensor]]) -> bool:
    """Whether an expression refers to nothing but constants, literals and variables made of them."""
    variables = {match[1] for match in _VARIABLE.finditer(expression)} - _LITERALS
    return "self" not in expression and variables <= made.keys()


def _operator(line: str, position: int) -> str:
    """The function whose argument list the position in a line of code is in; "" for none."""
    depth = 0
    for place in range(position - 1, -1, -1):
        depth += {")": 1, "(": -1}.get(line[place], 0)
        if depth < 0:
            name = _NAME.search(line[:place])
            return name[1].lstrip("_") if name else ""
    return ""
