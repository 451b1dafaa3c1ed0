"""Templates that `recast convert` keeps between its runs: a directory of files by key, for one user."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from app.conversion.job import BuiltTemplate, StoredTemplate, UnsuitableTemplate
from app.domain.report import Certificate


@dataclass(frozen=True)
class KeptTemplate:
    """One entry: its graph's certificate, or why there is none."""

    key: str
    bytes: int
    certificate: Certificate | None
    reason: str | None


def default_directory() -> Path:
    """$XDG_CACHE_HOME/recast/templates (XDG Base Directory Specification)."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if cache else Path.home() / ".cache") / "recast" / "templates"


class TemplateDirectory:
    """A TemplateSource. Files appear by rename, so that runs beside each other see whole ones only."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def find(self, key: str) -> StoredTemplate | UnsuitableTemplate | None:
        facts = self._facts(key)
        if facts is None:
            return None
        if facts["reason"] is not None:
            return UnsuitableTemplate(key, facts["reason"])
        return StoredTemplate(key, self._root / f"{key}.template", Certificate.model_validate(facts["certificate"]))

    def keep(self, template: BuiltTemplate | UnsuitableTemplate) -> None:
        """Take over what a conversion learned about a key."""
        self._root.mkdir(parents=True, exist_ok=True)
        if isinstance(template, UnsuitableTemplate):
            self._write_facts(template.key, {"certificate": None, "reason": template.reason})
            return
        arriving = self._root / f".{uuid4().hex}"
        shutil.copyfile(template.path, arriving)
        arriving.rename(self._root / f"{template.key}.template")
        certificate = json.loads(template.certificate.model_dump_json())
        self._write_facts(template.key, {"certificate": certificate, "reason": None})

    def discard(self, key: str) -> None:
        (self._root / f"{key}.json").unlink(missing_ok=True)
        (self._root / f"{key}.template").unlink(missing_ok=True)

    def entries(self) -> Sequence[KeptTemplate]:
        """Everything kept, by key."""
        kept = []
        for path in sorted(self._root.glob("*.json")):
            facts = self._facts(path.stem)
            if facts is not None:
                file = self._root / f"{path.stem}.template"
                certificate = Certificate.model_validate(facts["certificate"]) if facts["certificate"] else None
                kept.append(
                    KeptTemplate(path.stem, file.stat().st_size if file.exists() else 0, certificate, facts["reason"])
                )
        return kept

    def clear(self) -> int:
        """Remove everything; gives how many entries there were."""
        kept = self.entries()
        for entry in kept:
            self.discard(entry.key)
        return len(kept)

    def _facts(self, key: str) -> dict[str, str | None] | None:
        """What is written of a key; a template's file without its facts does not count."""
        try:
            facts: dict[str, str | None] = json.loads((self._root / f"{key}.json").read_text())
        except FileNotFoundError:
            return None
        return facts

    def _write_facts(self, key: str, facts: dict[str, object]) -> None:
        arriving = self._root / f".{uuid4().hex}"
        arriving.write_text(json.dumps(facts))
        arriving.rename(self._root / f"{key}.json")
