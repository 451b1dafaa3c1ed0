"""What a runtime reads: the limits that a file made for it keeps."""

from collections.abc import Collection, Iterator, Mapping

from pydantic import Field

from app.domain.base import Value


class RuntimeLimits(Value):
    """``operators``: the only ones that it has, None where it has all of its opset but those in ``lacks``."""

    name: str
    title: str
    opset: int
    """The newest of the default operator set."""
    ir_version: int
    """The newest."""
    external_data: bool = True
    """Whether weights may lie in a file beside the graph."""
    operators: frozenset[str] | None = None
    lacks: frozenset[str] = frozenset()
    refuses: Mapping[str, str] = Field(default_factory=dict)
    """Why it does not run files of a precision, by that."""

    def __str__(self) -> str:
        beside = "" if self.external_data else ", all in one file"
        known = "" if self.operators is None else f", {len(self.operators)} operators"
        return f"{self.title}: opset up to {self.opset}, IR version up to {self.ir_version}{beside}{known}"

    def objections(
        self, *, opset: int | None, ir_version: int | None, operators: Collection[str], external_data: bool
    ) -> Iterator[str]:
        """What of a file's facts goes beyond the limits, in words."""
        if opset is not None and opset > self.opset:
            yield f"opset {opset} is newer than {self.opset}"
        if ir_version is not None and ir_version > self.ir_version:
            yield f"IR version {ir_version} is newer than {self.ir_version}"
        if external_data and not self.external_data:
            yield "weights lie in a second file"
        missing = {name for name in operators if name in self.lacks}
        missing |= {name for name in operators if self.operators is not None and name not in self.operators}
        if missing:
            yield f"it has no {', '.join(sorted(missing))}"
