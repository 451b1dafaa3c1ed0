"""Where the code of a TorchScript file uses its constants.

The code is printed one statement to a line, with operators nested as calls: the text has the arguments of an outer call
before those of the inner, which runs first. A variable made of constants alone is not a use yet: freezing moves such
statements to the top. Its constants are used where the variable meets other values.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from app.conversion.verification.artifact.onnx_tensors import StoredTensor
from app.conversion.verification.ledger.graph_uses import GraphUse

_CONSTANT = re.compile(r"\bCONSTANTS\.(c\d+)\b")
_VARIABLE = re.compile(r"(?<![\w.\"])([A-Za-z_]\w*)\b(?![\w.(\"])")
_ASSIGNMENT = re.compile(r"^\s*(\w+) = (.*)$")
_LOOP = re.compile(r"^\s*(?:for|while)\b")
_NAME = re.compile(r"(\w+)$")
_PRODUCTS = ("matmul", "mm")
_LITERALS = frozenset({"True", "False", "None", "in", "is", "not", "and", "or", "if", "else"})


def constant_uses(code: list[str], constants: Mapping[str, StoredTensor]) -> Iterator[GraphUse]:
    """Uses in the order in which the calls of each function run; one node to a call."""
    node = 0
    for text in code:
        function = _Function(constants)
        for line in text.splitlines():
            uses, node = function.read(line, node)
            yield from uses


@dataclass(frozen=True)
class _Operand:
    """Something made of constants alone: where it stands in the line, of what, whether it is the constant itself."""

    place: int
    roots: list[StoredTensor]
    direct: bool


@dataclass(frozen=True)
class _Call:
    """A call's parentheses in a line; without a call, all of the line."""

    start: int
    end: int


class _Function:
    """What is known of the variables and loops while a function is read line by line."""

    def __init__(self, constants: Mapping[str, StoredTensor]) -> None:
        self.constants = constants
        self.made: dict[str, list[StoredTensor]] = {}
        self.products: dict[str, int] = {}
        """Nodes of products with a constant, by the variable they are assigned to."""
        self.loops: list[int] = []

    def read(self, line: str, node: int) -> tuple[list[GraphUse], int]:
        """The uses in a line, and the last node; ``node`` is the last before."""
        repeats = self._in_loop(line)
        operands = self._operands(line)
        assignment = _ASSIGNMENT.match(line)
        if assignment is not None and operands and self._is_closed(assignment[2]):
            self.made[assignment[1]] = [stored for operand in operands for stored in operand.roots]
            return [], node
        nodes: dict[_Call, int] = {}
        uses: list[GraphUse] = []
        placed = [(self._call(line, operand.place), operand) for operand in operands]
        # A call runs when all of its arguments have: in the order in which calls end.
        for call, operand in sorted(placed, key=lambda item: (item[0].end, item[1].place)):
            operator = _operator(line, call)
            if call not in nodes:
                product = self._product(line, call, nodes) if operator in ("add", "add_") else None
                nodes[call] = product if product is not None else (node := node + 1)
            for stored in operand.roots:
                position = sum(use.node == nodes[call] for use in uses)
                axes = tuple(range(len(stored.dims))) if operand.direct else None
                uses.append(GraphUse(nodes[call], position, operator, stored, axes, counted=False, repeats=repeats))
        self._remember_product(line, nodes)
        return uses, node

    def _in_loop(self, line: str) -> bool:
        indent = len(line) - len(line.lstrip())
        self.loops = [outer for outer in self.loops if outer < indent]
        repeats = bool(self.loops)
        if _LOOP.match(line):
            self.loops.append(indent)
        return repeats

    def _operands(self, line: str) -> list[_Operand]:
        direct = [
            _Operand(match.start(), [self.constants[match[1]]], True)
            for match in _CONSTANT.finditer(line)
            if match[1] in self.constants
        ]
        named = [
            _Operand(match.start(), self.made[match[1]], False)
            for match in _VARIABLE.finditer(_right(line))
            if match[1] in self.made
        ]
        return sorted(direct + named, key=lambda operand: operand.place)

    def _is_closed(self, expression: str) -> bool:
        """Whether an expression refers to nothing but constants, literals and variables made of them."""
        variables = {match[1] for match in _VARIABLE.finditer(expression)} - _LITERALS
        return "self" not in expression and variables <= self.made.keys()

    def _call(self, line: str, place: int) -> _Call:
        """The call in whose argument list a place is; of calls that only take constants, the one that takes theirs."""
        around = sorted((c for c in _calls(line) if c.start < place < c.end), key=lambda call: call.end)
        return next((c for c in around if not self._is_closed(line[c.start : c.end])), _Call(-1, len(line)))

    def _product(self, line: str, call: _Call, nodes: Mapping[_Call, int]) -> int | None:
        """The node of the product that a sum has as its first argument: a linear layer's, written as two calls."""
        first = line[call.start + 1 : call.end].partition(",")[0].strip()
        inner = [inner for inner in nodes if call.start < inner.start and _operator(line, inner) in _PRODUCTS]
        nested = min(inner, key=lambda inner: inner.start, default=None)
        if nested is not None and line[call.start + 1 : nested.start] == first.partition("(")[0]:
            return nodes[nested]
        return self.products.get(first)

    def _remember_product(self, line: str, nodes: Mapping[_Call, int]) -> None:
        assignment = _ASSIGNMENT.match(line)
        outer = next((c for c in nodes if c.end == len(line.rstrip()) - 1), None)
        if assignment is not None and outer is not None and _operator(line, outer) in _PRODUCTS:
            self.products[assignment[1]] = nodes[outer]


def _right(line: str) -> str:
    """The line with what it assigns to blanked out, so that places stay as they are."""
    assignment = _ASSIGNMENT.match(line)
    return line if assignment is None else " " * assignment.start(2) + assignment[2]


def _calls(line: str) -> list[_Call]:
    """Every pair of parentheses."""
    open_: list[int] = []
    found: list[_Call] = []
    for place, character in enumerate(line):
        if character == "(":
            open_.append(place)
        elif character == ")" and open_:
            found.append(_Call(open_.pop(), place))
    return found


def _operator(line: str, call: _Call) -> str:
    """The function that is called; "" for none."""
    name = _NAME.search(line[: max(call.start, 0)])
    return name[1].lstrip("_") if name else ""
