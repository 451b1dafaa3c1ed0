"""What a worker offers before it can tell is what it tells once it can."""

from app.architectures import known_catalog
from app.architectures.registry import Registry


def test_the_packaged_catalog_is_that_of_the_installed_libraries(registry: Registry) -> None:
    known = known_catalog.known_catalog()
    assert known == registry.library_catalog(), "descriptions changed: run scripts/library-catalog"


def test_a_catalog_of_other_versions_is_not_taken(monkeypatch) -> None:
    monkeypatch.setattr(known_catalog, "library_versions", lambda: {"torch": "0.4"})
    assert known_catalog.known_catalog() is None


def test_a_catalog_that_cannot_be_read_is_not_taken(monkeypatch, tmp_path) -> None:
    (tmp_path / "catalog.xz").write_bytes(b"not packed")
    monkeypatch.setattr(known_catalog, "_file", lambda: tmp_path / "catalog.xz")
    assert known_catalog.known_catalog() is None
