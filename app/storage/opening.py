"""Which store a location names."""

from pathlib import Path

from app.storage.objects import OwnableStore


def open_store(location: str, scratch: Path) -> OwnableStore:
    """The store at a URL or a directory. ``scratch``: a local directory for what passes through."""
    scheme, separator, rest = location.partition("://")
    if separator and scheme != "file":
        from app.storage.cloud import CloudStore

        return CloudStore(location, scratch)
    from app.storage.directory import DirectoryStore

    return DirectoryStore(Path(rest if separator else location))
