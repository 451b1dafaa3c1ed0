import pytest

from app.delivery.treemap import MOST_LAYERS, Box, ledger_map, squarified
from app.domain.report import Ledger, LedgerEntry
from tests.delivery.reports import ledger, tensors


def area(box: Box) -> float:
    return box.width * box.height


def overlap(one: Box, other: Box) -> float:
    across = min(one.x + one.width, other.x + other.width) - max(one.x, other.x)
    down = min(one.y + one.height, other.y + other.height) - max(one.y, other.y)
    return max(across, 0) * max(down, 0)


@pytest.mark.parametrize("aspect", [0.3, 1.0, 2.6])
@pytest.mark.parametrize("values", [[1.0], [6.0, 6.0, 4.0, 3.0, 2.0, 2.0, 1.0], [1e9, *[1.0] * 50]])
def test_areas_are_in_proportion_and_cover_the_whole_once(values, aspect):
    boxes = squarified(values, aspect)
    for value, box in zip(values, boxes, strict=True):
        assert area(box) == pytest.approx(1e4 * value / sum(values), rel=1e-6)
        assert box.x >= -1e-6
        assert box.y >= -1e-6
        assert box.x + box.width <= 100 + 1e-6
        assert box.y + box.height <= 100 + 1e-6
    pairs = [(one, other) for place, one in enumerate(boxes) for other in boxes[place + 1 :]]
    assert all(overlap(one, other) < 1e-6 for one, other in pairs)


def test_every_byte_of_the_ledger_is_in_a_tile_of_its_layer_and_class():
    book = ledger(tensors())
    layers = ledger_map(book)
    assert sum(layer.bytes for layer in layers) == book.uploaded_bytes
    for layer in layers:
        assert sum(tile.bytes for tile in layer.tiles) == layer.bytes
    by_class: dict[str, int] = {}
    for tile in (tile for layer in layers for tile in layer.tiles):
        by_class[tile.kind] = by_class.get(tile.kind, 0) + tile.bytes
    assert by_class == book.bytes_by_class


def test_a_model_of_thousands_of_tensors_is_a_picture_of_few_layers():
    entries = tuple(
        LedgerEntry(tensor=f"encoder.layer.{n}.part{m}.weight", ledger_class="identical", bytes=1000 if m else 4)
        for n in range(300)
        for m in range(20)
    )
    book = Ledger(
        entries=entries, initializers=(), uploaded_bytes=0, artifact_bytes=0, bytes_by_class={}, bytes_by_origin={},
        passed=True,
    )  # fmt: skip
    layers = ledger_map(book)
    assert len(layers) <= MOST_LAYERS
    assert sum(len(layer.tiles) for layer in layers) < 1000


def test_a_ledger_without_bytes_is_no_picture():
    book = ledger(tensors()).model_copy(update={"entries": ()})
    assert ledger_map(book) == ()
