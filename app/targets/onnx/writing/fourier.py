"""Fourier transforms of any length in float32, as exact as those of PyTorch.

onnxruntime's DFT and STFT (1.32) turn a vector step by step where they cannot halve the length: the rounding of each
step adds up, and the result is off by 60 unit roundoffs of its greatest value at 20 points, 1,600 at 400 and 5,500 at
1,000. A product with the transform's matrix is off by 2 to 6, as PyTorch is; with the length it grows too large, and
beyond LONGEST the transform is made of three of a power of two (Bluestein, A linear filtering approach to the
computation of the discrete Fourier transform, 1970), which are off by 15 to 25 together.

X[k] = Σ x[j] · exp(∓2πi · j·k / n), and 1/n of the sum for the inverse (ONNX, operator DFT). Angles are those of whole
numbers modulo a full turn, so that they are exact but for one rounding.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

LONGEST = 1024
"""Points up to which the two matrices (8 bytes for each pair of points) are made."""
_GREATEST_POWER = 40
"""Of two: of more points there is no memory."""


@dataclass(frozen=True)
class _Transform:
    """``given`` has ``parts`` (1: real, 2: complex) on its last axis; ``points``: a number, or a value of the graph."""

    given: ir.Value
    rank: int
    parts: int
    axis: int
    points: int | ir.Value
    inverse: bool
    one_sided: bool


def make_transforms_exact(model: ir.Model) -> None:
    """Replace DFT and STFT nodes of lengths that are not known to be powers of two. In place."""
    opset = model.opset_imports.get("", 18)
    nodes = [node for node in model.graph.all_nodes() if node.op_type in ("DFT", "STFT") and node.domain == ""]
    for number, node in enumerate(nodes):
        writer = _Writer(opset)
        asked = writer.stft(node) if node.op_type == "STFT" else writer.dft(node)
        if asked is None or (isinstance(asked.points, int) and asked.points & (asked.points - 1) == 0):
            continue
        prefix, graph = f"fourier_{number}", node.graph
        assert graph is not None
        result = writer.spectrum(asked, prefix)
        writer.name(prefix)
        given = node.outputs[0]
        name, result.type, result.shape = given.name, given.type, given.shape
        graph.insert_before(node, writer.nodes)
        ir.convenience.replace_all_uses_with(given, result, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        given.name, result.name = None, name  # which may be that of an output


class _Writer:
    """Nodes of one transform, in their order."""

    def __init__(self, opset: int) -> None:
        self._opset, self._tape = opset, Tape()

    @property
    def nodes(self) -> Sequence[ir.Node]:
        return self._tape.nodes

    def name(self, prefix: str) -> None:
        for number, node in enumerate(self.nodes):
            node.name = f"{prefix}_{number}"
            for output in node.outputs:
                output.name = node.name

    # --- what a node asks; None where the graph does not tell enough ------------------------------------------------

    def dft(self, node: ir.Node) -> _Transform | None:
        given, length, place = (*node.inputs, None, None)[:3]
        if given is None or given.shape is None or given.dtype is not ir.DataType.FLOAT:
            return None
        rank, parts = len(given.shape), given.shape[-1]
        axis = _number(place) if place is not None else _attribute(node, "axis", 1 if self._opset < 20 else -2)
        if axis is None or not isinstance(parts, int):
            return None
        known = given.shape[axis] if length is None else _number(length)
        points: int | ir.Value
        if isinstance(known, int):
            points = known
        else:
            shown = self("Shape", given, start=axis % rank, end=axis % rank + 1) if length is None else length
            points = self("Squeeze", self("Cast", shown, to=ir.DataType.INT64))
        inverse, one_sided = (bool(_attribute(node, name, 0)) for name in ("inverse", "onesided"))
        return _Transform(given, rank, parts, axis % rank, points, inverse, one_sided)

    def stft(self, node: ir.Node) -> _Transform | None:
        """Its frames, of which each is transformed: ``(batch, frames, points, 1)``."""
        signal, step, window, length = (*node.inputs, None, None)[:4]
        known = window.shape[0] if window is not None and window.shape is not None else None
        points = _number(length) if length is not None else known
        if signal is None or signal.shape is None or signal.dtype is not ir.DataType.FLOAT or signal.shape[-1] != 1:
            return None
        if step is None or not isinstance(points, int):
            return None
        step = self("Squeeze", self("Cast", step, to=ir.DataType.INT64))
        samples = self("Squeeze", self("Shape", signal, start=1, end=2))
        last = self("Sub", samples, self.whole(points - 1))
        starts = self("Range", self.whole(0), last, step)
        places = self("Add", self("Unsqueeze", starts, self.whole(1, rank=1)), self.up_to(self.whole(points)))
        frames = self("Gather", self("Squeeze", signal, self.whole(-1, rank=1)), places, axis=1)
        if window is not None:
            frames = self("Mul", frames, window)
        frames = self("Unsqueeze", frames, self.whole(-1, rank=1))
        return _Transform(frames, 4, 1, 2, points, inverse=False, one_sided=bool(_attribute(node, "onesided", 1)))

    # --- the transform ----------------------------------------------------------------------------------------------

    def spectrum(self, asked: _Transform, prefix: str) -> ir.Value:
        """In the shape that DFT gives it; which way to go a branch decides where the graph's inputs give the length.

        ``prefix``: of the names in the branches.
        """
        if isinstance(asked.points, int):
            return self._transformed(asked, by_matrix=asked.points <= LONGEST)
        branches = {}
        for name, by_matrix in (("then_branch", True), ("else_branch", False)):
            part = _Writer(self._opset)
            result = part._transformed(asked, by_matrix=by_matrix)
            part.name(f"{prefix}_{name}")
            result.type = asked.given.type
            branches[name] = ir.Graph((), [result], nodes=part.nodes, name=f"{prefix}_{name}")
        return self("If", self("LessOrEqual", asked.points, self.whole(LONGEST)), **branches)

    def _transformed(self, asked: _Transform, *, by_matrix: bool) -> ir.Value:
        real = asked.inverse and asked.one_sided
        points = self.whole(asked.points) if isinstance(asked.points, int) else asked.points
        half = self("Add", self("Div", points, self.whole(2)), self.whole(1))
        last = [place for place in range(asked.rank) if place != asked.axis] + [asked.axis]
        rows = self("Transpose", asked.given, perm=last)  # (..., parts, points)
        rows = self._cut(rows, half if real else points)
        parts = [self("Gather", rows, self.whole(part), axis=-2) for part in range(asked.parts)]
        j = self.up_to(self("Squeeze", self("Shape", rows, start=-1)))
        k = self.up_to(half if asked.one_sided and not real else points)
        if real:
            parts = [self("Mul", part, self._both_sides(j, points)) for part in parts]
        ways = self._by_matrix if by_matrix else self._by_chirps
        sums = ways(parts, j, k, points, inverse=asked.inverse)[: 1 if real else 2]
        if asked.inverse:
            sums = [self("Div", each, self("Cast", points, to=ir.DataType.FLOAT)) for each in sums]
        stacked = self._stacked(sums, -2)
        return self("Transpose", stacked, perm=[last.index(place) for place in range(asked.rank)])

    def _by_matrix(
        self, parts: list[ir.Value], j: ir.Value, k: ir.Value, points: ir.Value, *, inverse: bool
    ) -> list[ir.Value]:
        """Real and imaginary part of the sums over ``j``, ``(..., k)``."""
        rows, columns = self("Unsqueeze", j, self.whole(1, rank=1)), self("Unsqueeze", k, self.whole(0, rank=1))
        turn = self._turned(self("Mul", rows, columns), points, inverse=inverse)
        return self._product(parts, turn, "MatMul")

    def _by_chirps(
        self, parts: list[ir.Value], j: ir.Value, k: ir.Value, points: ir.Value, *, inverse: bool
    ) -> list[ir.Value]:
        """Likewise, as a convolution: 2jk = j² + k² - (k - j)²."""
        twice = self("Mul", points, self.whole(2))
        powers = self("Constant", value=ir.tensor(np.array([1 << p for p in range(_GREATEST_POWER)], np.int64)))
        enough = self("Where", self("GreaterOrEqual", powers, twice), powers, self.whole(1 << _GREATEST_POWER))
        size = self("ReduceMin", enough, keepdims=0)
        m = self.up_to(size)
        m = self("Min", m, self("Sub", size, m))

        def chirp(places: ir.Value, *, inverse: bool) -> list[ir.Value]:
            return self._turned(self("Mul", places, places), twice, inverse=inverse)

        other = [self("Unsqueeze", each, self.whole(0, rank=1)) for each in chirp(m, inverse=not inverse)]
        left = self._power(self._product(parts, chirp(j, inverse=inverse), "Mul"), size, inverse=False)
        right = self._power(other, size, inverse=False)
        joined = self._power(self._product(left, right, "Mul"), size, inverse=True)
        joined = [self._cut(each, self("Squeeze", self("Shape", k))) for each in joined]
        return self._product(joined, chirp(k, inverse=inverse), "Mul")

    def _power(self, parts: list[ir.Value], size: ir.Value, *, inverse: bool) -> list[ir.Value]:
        """The transform along the last axis, by the runtime; ``size`` is a power of two."""
        given, direction = self._stacked(parts, -1), int(inverse)
        if self._opset < 20:
            made = self("DFT", given, size, axis=-2, inverse=direction)
        else:
            made = self("DFT", given, size, self.whole(-2), inverse=direction)
        return [self("Gather", made, self.whole(part), axis=-1) for part in (0, 1)]

    # --- arithmetic -------------------------------------------------------------------------------------------------

    def _product(self, left: list[ir.Value], right: list[ir.Value], operator: str) -> list[ir.Value]:
        """Of complex numbers; ``left`` may be real."""
        real, imaginary = (self(operator, left[0], each) for each in right)
        if len(left) == 1:
            return [real, imaginary]
        return [
            self("Sub", real, self(operator, left[1], right[1])),
            self("Add", imaginary, self(operator, left[1], right[0])),
        ]

    def _turned(self, numbers: ir.Value, turn: ir.Value, *, inverse: bool) -> list[ir.Value]:
        """exp(∓2πi · numbers / turn), of int64 numbers."""
        left = self("Cast", self("Mod", numbers, turn), to=ir.DataType.FLOAT)
        step = self(
            "Div", self.real(2 * math.pi if inverse else -2 * math.pi), self("Cast", turn, to=ir.DataType.FLOAT)
        )
        angles = self("Mul", left, step)
        return [self("Cos", angles), self("Sin", angles)]

    def _both_sides(self, j: ir.Value, points: ir.Value) -> ir.Value:
        """How often each point of one side stands in the whole: once at 0 and in the middle, else twice."""
        once = self("Equal", self("Mod", self("Mul", j, self.whole(2)), points), self.whole(0))
        return self("Sub", self.real(2), self("Cast", once, to=ir.DataType.FLOAT))

    def _cut(self, value: ir.Value, size: ir.Value) -> ir.Value:
        end = self("Reshape", size, self.whole(1, rank=1))
        return self("Slice", value, self.whole(0, rank=1), end, self.whole(-1, rank=1))

    def _stacked(self, parts: Sequence[ir.Value], axis: int) -> ir.Value:
        return self("Concat", *(self("Unsqueeze", each, self.whole(axis, rank=1)) for each in parts), axis=axis)

    def up_to(self, end: ir.Value) -> ir.Value:
        """0, 1, ... before ``end``."""
        return self("Range", self.whole(0), end, self.whole(1))

    def whole(self, number: int, rank: int = 0) -> ir.Value:
        return self("Constant", value=ir.tensor(np.full((1,) * rank, number, np.int64)))

    def real(self, number: float) -> ir.Value:
        return self("Constant", value=ir.tensor(np.array(number, np.float32)))

    def __call__(self, operator: str, *inputs: ir.Value, **attributes: object) -> ir.Value:
        return self._tape.op(operator, list(inputs), attributes)  # type: ignore[arg-type]


def _attribute(node: ir.Node, name: str, default: int) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default


def _number(value: ir.Value) -> int | None:
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else int(tensor.numpy().reshape(-1)[0])
