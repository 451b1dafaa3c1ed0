"""The ledger's two columns while they are filled, and their closing into a report.

One column explains each stored tensor of the artifact, the other says what carries each uploaded tensor. Closing puts
every uploaded tensor into exactly one class and every stored tensor under exactly one origin, and adds up the bytes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from app.conversion.verification.ledger.sources import Source, Sources, raw_bytes, same_bytes
from app.domain.checkpoint import LoadReport
from app.domain.report import InitializerEntry, InitializerOrigin, Ledger, LedgerClass, LedgerEntry
from app.targets.artifact import StoredTensor

_LISTED = 20
"""Problems named one by one; beyond, only counted."""


@dataclass(frozen=True)
class Explanation:
    """Where one stored tensor came from. ``sources`` are state-dict keys or buffers."""

    origin: InitializerOrigin
    sources: tuple[str, ...] = ()
    detail: str | None = None


@dataclass(frozen=True)
class Carrier:
    """A stored tensor that carries a source, and how."""

    stored: StoredTensor
    how: LedgerClass
    detail: str | None = None


@dataclass(eq=False)
class Books:
    """``carriers`` list what holds a source whole; ``folded`` names the stored tensors that its folds went into."""

    stored: list[StoredTensor]
    sources: Sources
    explained: dict[StoredTensor, Explanation] = field(default_factory=dict)
    carriers: dict[str, list[Carrier]] = field(default_factory=dict)
    folded: dict[str, tuple[tuple[str, ...], str]] = field(default_factory=dict)
    unused: dict[str, str] = field(default_factory=dict)
    doubts: dict[str, str] = field(default_factory=dict)
    """Why a source is unaccounted, where more is known than that nothing carries it."""
    problems: list[str] = field(default_factory=list)

    def carry(self, stored: StoredTensor, source: Source, how: LedgerClass, detail: str | None = None) -> None:
        """Record that the stored tensor holds the whole source."""
        if source.kind == "uploaded":
            if how == "identical" and source.cast:
                how = "cast"
            note = _cast_note(source) if source.cast else None
            detail = "; ".join(part for part in (detail, note) if part) or None
            origin: InitializerOrigin = "tensor"
        else:
            origin = "constant"
            detail = _OWN[source.kind]
        self.carriers.setdefault(source.name, []).append(Carrier(stored, how, detail))
        earlier = self.explained.get(stored)
        names = (*earlier.sources, source.name) if earlier else (source.name,)
        if earlier and earlier.origin == "tensor":
            origin, detail = "tensor", earlier.detail
        self.explained[stored] = Explanation(origin, names, detail)

    def fold(self, names: Iterable[str], stored: StoredTensor, detail: str) -> None:
        """Record that the stored tensor holds what these sources were arranged to."""
        for name in names:
            carriers, _ = self.folded.get(name, ((), ""))
            self.folded[name] = ((*carriers, stored.name), detail)

    def explain(self, stored: StoredTensor, origin: InitializerOrigin, sources: tuple[str, ...], detail: str) -> None:
        self.explained[stored] = Explanation(origin, sources, detail)

    def open_sources(self) -> list[str]:
        """Uploaded tensors of the architecture that nothing carries yet."""
        return [
            name
            for name, source in self.sources.by_name.items()
            if source.kind == "uploaded"
            and source.name == name
            and name not in self.carriers
            and name not in self.folded
            and name not in self.unused
            and not self._tied_carrier(name)
        ]

    def _tied_carrier(self, name: str) -> str | None:
        """Another key of the same parameter, with the same bytes, that something carries."""
        source = self.sources.by_name[name]
        for other in self.sources.ties(name):
            partner = self.sources.by_name.get(other)
            held = other in self.carriers or other in self.folded
            if held and partner and same_bytes(raw_bytes(source.value()), raw_bytes(partner.value())):
                return other
        return None

    def close(self, uploaded: Mapping[str, Tensor], load: LoadReport) -> Ledger:
        ignored = set(load.ignored_keys) | set(load.unexpected_keys)
        entries = tuple(self._entry(name, tensor, name in ignored) for name, tensor in uploaded.items())
        initializers = tuple(self._initializer(stored) for stored in self.stored)
        problems = list(self.problems)
        problems += [
            f"{entry.tensor}: unaccounted: {entry.detail}" for entry in entries if entry.ledger_class == "unaccounted"
        ]
        problems += [f"{entry.name}: unexplained: {entry.detail}" for entry in initializers if _fails(entry)]
        if len(problems) > _LISTED:
            problems = [*problems[:_LISTED], f"and {len(problems) - _LISTED} more"]
        by_class: dict[str, int] = {}
        for entry in entries:
            by_class[entry.ledger_class] = by_class.get(entry.ledger_class, 0) + entry.bytes
        by_origin: dict[str, int] = {}
        for found in initializers:
            by_origin[found.origin] = by_origin.get(found.origin, 0) + found.bytes
        return Ledger(
            entries=entries,
            initializers=initializers,
            uploaded_bytes=sum(tensor.nbytes for tensor in uploaded.values()),
            artifact_bytes=sum(stored.nbytes for stored in self.stored),
            bytes_by_class=by_class,
            bytes_by_origin=by_origin,
            passed=not problems,
            problems=tuple(problems),
        )

    def _entry(self, name: str, tensor: Tensor, ignored: bool) -> LedgerEntry:
        source = self.sources.by_name.get(name)
        destination = _IGNORED if ignored else _FOREIGN
        if not ignored and source is not None and source.kind == "uploaded":
            destination = self._destination(name)
        ledger_class, initializers, detail = destination
        return LedgerEntry(
            tensor=name, ledger_class=ledger_class, bytes=tensor.nbytes, initializers=initializers, detail=detail
        )

    def _destination(self, name: str) -> "_Destination":
        """Class, carrying stored tensors and detail of an uploaded tensor that the architecture has."""
        tied = self._tied_carrier(name)
        carriers = self.carriers.get(name, [])
        own = any(carrier.stored.name == name for carrier in carriers)
        if tied and not own and (not carriers or _precedes(tied, name, self.sources)):
            return "tied_to", self._names(tied), f"the same parameter as {tied}"
        if carriers:
            best = min(carriers, key=lambda carrier: _PREFERRED.index(carrier.how))
            return best.how, self._names(name), best.detail
        if name in self.folded:
            return "folded", *self.folded[name]
        if name in self.unused:
            return "unused", (), self.unused[name]
        return "unaccounted", (), self.doubts.get(name, "no tensor of the artifact carries it")

    def _names(self, name: str) -> tuple[str, ...]:
        found = [carrier.stored.name for carrier in self.carriers.get(name, [])]
        return tuple(dict.fromkeys(found)) or self.folded.get(name, ((), ""))[0]

    def _initializer(self, stored: StoredTensor) -> InitializerEntry:
        found = self.explained.get(stored, Explanation("unexplained", (), "nothing the architecture holds or computes"))
        return InitializerEntry(
            name=stored.name, origin=found.origin, bytes=stored.nbytes, sources=found.sources, detail=found.detail
        )


_Destination = tuple[LedgerClass, tuple[str, ...], str | None]
_IGNORED: _Destination = ("ignored", (), "left out while loading")
_FOREIGN: _Destination = (
    "unaccounted",
    (),
    "the architecture has no tensor of this name and shape",
)
_PREFERRED: tuple[LedgerClass, ...] = ("identical", "cast", "transposed", "quantized", "folded")
_OWN = {
    "missing": "the architecture's initial value of a key that the upload lacks (strict=false)",
    "buffer": "a non-persistent buffer of the architecture",
}


def _precedes(first: str, second: str, sources: Sources) -> bool:
    group = sources.groups[second]
    return group.index(first) < group.index(second)


def _fails(entry: InitializerEntry) -> bool:
    return entry.origin == "unexplained"


def _cast_note(source: Source) -> str:
    return f"{_short(source.tensor.dtype)} rounded to {_short(source.dtype)}"


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
