"""Where the nodes of an ONNX graph take stored tensors, in the graph's order."""

from collections.abc import Mapping
from dataclasses import dataclass

from app.conversion.verification.artifact.onnx_tensors import OnnxFile, StoredGraph, StoredNode, StoredTensor

Place = tuple[int, int]
"""Node and argument."""


@dataclass(frozen=True)
class GraphUse:
    """One place where a stored tensor meets the graph's inputs: node in graph order, argument, what arrives there.

    ``axes`` is the order in which the stored tensor's axes arrive, None when something else was made of it on the way;
    ``transposed`` says that the operator itself transposes this argument (Gemm's transB). ``counted`` is False where
    one use in the file may stand for several when it runs; ``repeats`` is True in the body of a loop.
    """

    node: int
    argument: int
    operator: str
    stored: StoredTensor
    axes: tuple[int, ...] | None = None
    transposed: bool = False
    counted: bool = True
    repeats: bool = False

    @property
    def place(self) -> Place:
        return self.node, self.argument


@dataclass(frozen=True)
class _Root:
    stored: StoredTensor
    axes: tuple[int, ...] | None


_Roots = tuple[_Root, ...]


_SIZES = ("Shape", "Size")
"""Operators that read no element. The eager forward has Python numbers in their place, which touch no weight either:
a bias table that is expanded to the batch meets the inputs where it is added, not where it is expanded."""


def graph_uses(file: OnnxFile) -> list[GraphUse]:
    """Uses in graph order, followed through nodes that depend on stored tensors and sizes alone (Transpose, Expand)."""
    walk = _Walk()
    walk.graph(file.graph, {})
    return walk.uses


class _Walk:
    def __init__(self) -> None:
        self.uses: list[GraphUse] = []
        self.node = 0
        self.depth = 0

    def graph(self, graph: StoredGraph, outer: Mapping[str, _Roots]) -> None:
        """``known`` maps each weight-only value in scope to the stored tensors it came from."""
        known = dict(outer)
        for name in graph.inputs:
            known.pop(name, None)
        known |= {stored.name: (_whole(stored),) for stored in graph.initializers}
        for node in graph.nodes:
            self.node += 1
            named = [name for name in node.inputs if name]
            if node.op_type in _SIZES:
                known |= dict.fromkeys(node.outputs, ())
                continue
            if not node.subgraphs and all(name in known for name in named):
                known |= dict.fromkeys(node.outputs, _made(node, [known[name] for name in named]))
                continue
            for position, name in enumerate(node.inputs):
                self._use(position, node.op_type, known.get(name, ()), node.ints.get("transB") == (1,))
            self._use(len(node.inputs), node.op_type, tuple(_whole(stored) for stored in node.tensors))
            self.depth += 1
            for subgraph in node.subgraphs:
                self.graph(subgraph, known)
            self.depth -= 1
        self.node += 1
        for position, name in enumerate(graph.outputs):
            self._use(position, "output", known.get(name, ()))

    def _use(self, position: int, operator: str, roots: _Roots, transposed: bool = False) -> None:
        for root in roots:
            self.uses.append(
                GraphUse(self.node, position, operator, root.stored, root.axes, transposed, self.depth == 0)
            )


def _whole(stored: StoredTensor) -> _Root:
    return _Root(stored, tuple(range(len(stored.dims))))


def _made(node: StoredNode, operands: list[_Roots]) -> _Roots:
    """What a node makes of weight-only operands."""
    if node.op_type == "Identity":
        return operands[0]
    perm = node.ints.get("perm")
    if node.op_type == "Transpose" and perm:
        return tuple(_Root(root.stored, _permuted(root.axes, perm)) for root in operands[0])
    if not operands:
        return tuple(_whole(stored) for stored in node.tensors)
    made = [*(root.stored for roots in operands for root in roots), *node.tensors]
    return tuple(dict.fromkeys(_Root(stored, None) for stored in made))


def _permuted(axes: tuple[int, ...] | None, perm: tuple[int, ...]) -> tuple[int, ...] | None:
    return tuple(axes[axis] for axis in perm) if axes is not None and len(axes) == len(perm) else None
