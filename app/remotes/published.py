"""A conversion as something to publish: its files, its tensors, and what is told of it beside them."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from app.targets.spec import Serving


@dataclass(frozen=True)
class TensorShape:
    """An input or an output of a model. ``dims``: of the whole tensor, its batch included; -1 where it may vary."""

    name: str
    dtype: str
    dims: tuple[int, ...]


@dataclass(frozen=True)
class PublishedFile:
    """A file to publish. ``role`` as the conversion's; ``open`` streams it from its beginning."""

    role: str
    filename: str
    sha256: str
    size: int
    media_type: str
    open: Callable[[], AsyncIterator[bytes]]


@dataclass(frozen=True)
class Model:
    """A conversion as something to publish."""

    conversion_id: str
    architecture: str
    target: str
    serving: Serving
    verdict: str
    checkpoint_sha256: str
    default_name: str
    files: tuple[PublishedFile, ...]
    inputs: tuple[TensorShape, ...]
    outputs: tuple[TensorShape, ...]

    def file(self, role: str) -> PublishedFile | None:
        return next((file for file in self.files if file.role == role), None)

    @property
    def artifact(self) -> PublishedFile:
        found = self.file("artifact")
        assert found is not None
        return found

    def facts(self) -> dict[str, str]:
        """What a place is told of the model beside its files."""
        return {
            "recast.conversion": self.conversion_id,
            "recast.architecture": self.architecture,
            "recast.target": self.target,
            "recast.verdict": self.verdict,
            "recast.checkpoint_sha256": self.checkpoint_sha256,
            "recast.artifact_sha256": self.artifact.sha256,
        }
