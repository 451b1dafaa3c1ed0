"""A treemap: areas in proportion to values, as square as can be (Bruls, Huizing, van Wijk: Squarified Treemaps, 2000).

Places are in percent of the width and of the height, so that the picture needs no fixed size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from app.domain.report import Ledger, LedgerEntry

MOST_LAYERS = 24
"""Groups that a reader can still tell apart; layers beyond are taken together by the start of their path."""
DEEPEST = 8
"""Names of a path up to which layers are told apart."""
LEAST_SHARE = 0.0003
"""Of all bytes: what a tensor must have to be drawn by itself. Smaller ones of a layer and a class are one tile."""
WIDE = 2.6
"""Width to height of the picture on a screen, for which tiles are made square."""


@dataclass(frozen=True)
class Box:
    """A rectangle, in percent of its parent."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Tile:
    """One tensor, or several small ones, within its layer."""

    label: str
    kind: str
    bytes: int
    box: Box


@dataclass(frozen=True)
class Layer:
    """The tensors of one part of the model."""

    name: str
    bytes: int
    tensors: int
    box: Box
    tiles: tuple[Tile, ...]


def squarified(values: Sequence[float], aspect: float = 1.0) -> tuple[Box, ...]:
    """A box for each value, which must be positive and descend; ``aspect`` is width / height of the whole."""
    boxes: list[Box] = []
    whole = sum(values)
    left, top, width, height = 0.0, 0.0, aspect, 1.0
    rest = list(values)
    while rest:
        scale = width * height / sum(rest)
        side = min(width, height)
        row = _row([value * scale for value in rest], side)
        thickness = sum(row) / side
        along = 0.0
        for area in row:
            length = area / thickness
            place = (
                (left, top + along, thickness, length) if width >= height else (left + along, top, length, thickness)
            )
            boxes.append(_percent(place, aspect))
            along += length
        if width >= height:
            left, width = left + thickness, max(width - thickness, 1e-12)
        else:
            top, height = top + thickness, max(height - thickness, 1e-12)
        rest = rest[len(row) :]
    assert len(boxes) == len(values) or whole <= 0
    return tuple(boxes)


def ledger_map(ledger: Ledger) -> tuple[Layer, ...]:
    """The uploaded tensors by layer, the largest first, each with its class."""
    entries = [entry for entry in ledger.entries if entry.bytes > 0]
    layers = {name: [entries[n] for n in places] for name, places in by_layer([e.tensor for e in entries]).items()}
    total = sum(entry.bytes for entries in layers.values() for entry in entries)
    sized = sorted(((sum(e.bytes for e in entries), name) for name, entries in layers.items()), reverse=True)
    boxes = squarified([float(size) for size, _ in sized], WIDE)
    return tuple(
        Layer(name, size, len(layers[name]), box, _tiles(layers[name], total, box))
        for (size, name), box in zip(sized, boxes, strict=True)
    )


def _row(areas: Sequence[float], side: float) -> list[float]:
    """As many of the first areas as make a row along ``side`` whose worst rectangle is as square as can be."""
    row = [areas[0]]
    for area in areas[1:]:
        if _worst([*row, area], side) > _worst(row, side):
            break
        row.append(area)
    return row


def _worst(row: Sequence[float], side: float) -> float:
    """The greatest ratio of two sides of the rectangles that ``row`` makes."""
    whole = sum(row)
    return max(side**2 * max(row) / whole**2, whole**2 / (side**2 * min(row)))


def _percent(place: tuple[float, float, float, float], aspect: float) -> Box:
    x, y, width, height = place
    return Box(x / aspect * 100, y * 100, width / aspect * 100, height * 100)


def by_layer(tensors: Sequence[str], most: int = MOST_LAYERS) -> dict[str, list[int]]:
    """Places of tensors by the longest common starts of their paths of which there are at most ``most``."""
    depth = 1
    while depth < DEEPEST and len({_start(tensor, depth + 1) for tensor in tensors}) <= most:
        depth += 1
    grouped: dict[str, list[int]] = {}
    for place, tensor in enumerate(tensors):
        grouped.setdefault(_start(tensor, depth), []).append(place)
    return grouped


def _start(tensor: str, depth: int) -> str:
    """The first ``depth`` names of a tensor's path, without its own: layer1.0.conv1.weight is layer1.0 at 2."""
    *modules, own = tensor.split(".")
    return ".".join(modules[:depth]) or own


def _tiles(entries: Sequence[LedgerEntry], total: int, layer: Box) -> tuple[Tile, ...]:
    tiles: list[tuple[int, str, str]] = []
    small: dict[str, list[LedgerEntry]] = {}
    for entry in entries:
        if entry.bytes >= LEAST_SHARE * total:
            tiles.append((entry.bytes, entry.tensor, entry.ledger_class))
        else:
            small.setdefault(entry.ledger_class, []).append(entry)
    for kind, several in small.items():
        label = several[0].tensor if len(several) == 1 else f"{len(several)} small tensors"
        tiles.append((sum(entry.bytes for entry in several), label, kind))
    tiles.sort(reverse=True)
    boxes = squarified([float(size) for size, _, _ in tiles], WIDE * layer.width / layer.height)
    return tuple(Tile(label, kind, size, box) for (size, label, kind), box in zip(tiles, boxes, strict=True))
