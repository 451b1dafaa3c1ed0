"""How figures and codes are said to a reader: units, verdicts and reasons in words, hostile names made safe."""

import json
import math
import unicodedata
from datetime import UTC, datetime

from app.domain.reasons import REASONS
from app.domain.report import Reason, Verdict

LONGEST_NAME = 160
"""Characters of a tensor's or file's name that a page shows; the JSON report has the whole."""

VERDICT_WORDS: dict[Verdict, str] = {
    Verdict.passed: "Verified",
    Verdict.pass_with_notes: "Verified, with notes",
    Verdict.within_budget: "Within its budget",
    Verdict.inconclusive: "Inconclusive",
    Verdict.fail: "Failed verification",
}

SIZE_UNITS = ("B", "kB", "MB", "GB", "TB")
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def reason_words(reason: Reason) -> str:
    return REASONS[reason].title


def size(count: int) -> str:
    """Bytes in decimal units: 46_838_211 is "46.8 MB"."""
    value = float(count)
    for unit in SIZE_UNITS:
        if value < 1000 or unit == SIZE_UNITS[-1]:
            return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("the last unit has no upper bound")


def seconds(value: float) -> str:
    """A duration in the unit that gives it one to three digits before the point."""
    if value < 1e-3:
        return f"{value * 1e6:.0f} µs"
    if value < 1:
        return f"{value * 1e3:.1f} ms"
    return f"{value:.2f} s" if value < 100 else f"{value:.0f} s"


def scientific(value: float) -> str:
    """Two significant digits, as 3.1×10⁻⁷ where that is shorter than zeros."""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else ("∞" if value > 0 else "-∞")
    if value == 0:
        return "0"
    if 1e3 <= abs(value) < 1e6:
        return count(round(value))
    if 1e-3 <= abs(value) < 1e3:
        return f"{value:.3g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}×10{str(int(exponent)).translate(SUPERSCRIPTS)}"


def count(value: int) -> str:
    """Thousands apart: 11 689 512."""
    return f"{value:,}".replace(",", "\u202f")


def shape(dimensions: tuple[int | str, ...]) -> str:
    return "[" + ", ".join(str(dimension) for dimension in dimensions) + "]"


def name(text: str) -> str:
    """A name from an uploaded file, with what cannot be seen written out and at most LONGEST_NAME characters."""
    shown = "".join(
        f"\\u{ord(character):04x}" if unicodedata.category(character)[0] == "C" else character
        for character in text[:LONGEST_NAME]
    )
    return shown if len(text) <= LONGEST_NAME else f"{shown}… ({count(len(text))} characters)"


def value(given: object) -> str:
    """An option's value as its JSON, which is what a client sends: true, null, [1, 3]; texts without their quotes."""
    return given if isinstance(given, str) else json.dumps(given, ensure_ascii=False, default=str)


def moment(time: datetime | str | None) -> str:
    """A time as people read it, in UTC: 26 Nov 2026, 11:52 UTC. What is no time stays as it is."""
    if time is None:
        return "not yet"
    try:
        when = datetime.fromisoformat(time) if isinstance(time, str) else time
    except ValueError:
        return str(time)
    return when.astimezone(UTC).strftime("%-d %b %Y, %H:%M UTC")
