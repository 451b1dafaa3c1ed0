"""What can be said of a target without torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from app.domain.conversion import CommonOptions, TargetName
from app.domain.report import ConversionReport


@dataclass(frozen=True)
class TargetSpec:
    """One target. ``title`` is what people call its format, ``suffix`` ends the names of its files."""

    name: TargetName
    title: str
    options: type[CommonOptions]
    """A class with the member ``target`` that admits ``name`` only."""
    suffix: str
    usage: Callable[[ConversionReport], Mapping[str, str]]
    """Language to code that loads the artifact of this report and runs it once."""
    media_type: str = "application/octet-stream"


def arguments(names: tuple[str, ...], form: str) -> str:
    """The names in code, parted by commas; in ``form`` {0} is a name inside quotes, {1} one as a variable."""
    return ", ".join(form.format(_quoted(name), _identifier(name)) for name in names)


def _quoted(name: str) -> str:
    return name.replace("\\", "\\\\").replace('"', '\\"')


def _identifier(name: str) -> str:
    """Characters that no variable may have become underscores."""
    kept = "".join(character if character.isalnum() and character.isascii() else "_" for character in name)
    return kept if kept and not kept[0].isdigit() else f"value_{kept}"
