"""Results on a terminal."""

from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.cli.template_directory import KeptTemplate
from app.delivery import words
from app.domain.report import ConversionReport, Verdict
from app.settings import Settings

WIDE = 10_000
"""Columns of what is no terminal."""
STATUS = {
    Verdict.passed: 0,
    Verdict.pass_with_notes: 0,
    Verdict.within_budget: 0,
    Verdict.inconclusive: 3,
    Verdict.fail: 1,
}
COLOURS = {
    Verdict.passed: "green",
    Verdict.pass_with_notes: "yellow",
    Verdict.within_budget: "cyan",
    Verdict.inconclusive: "magenta",
    Verdict.fail: "red",
}


def exit_status(verdict: Verdict) -> int:
    return STATUS[verdict]


def show_report(report: ConversionReport, written: Path | None) -> None:
    """The verdict, what it rests on, and where the file is."""
    verification = report.verification
    console = Console(highlight=False)
    console.print(Text(words.VERDICT_WORDS[verification.verdict], style=f"bold {COLOURS[verification.verdict]}"))
    comparisons = sum(len(probe.outputs) for probe in verification.probes)
    worst = verification.worst_ratio
    console.print(
        f"  worst error {words.scientific(worst)} of the gate in {comparisons} comparisons"
        if worst is not None
        else "  no output was compared"
    )
    if verification.ledger is not None:
        accounted = "all accounted for" if verification.ledger.passed else "NOT all accounted for"
        console.print(f"  {len(verification.ledger.entries)} uploaded tensors, {accounted}")
    for finding in verification.findings:
        console.print(Text(f"  {finding.severity}: {words.reason_words(finding.reason)} ({finding.reason.value})"))
        console.print(Text(f"    {finding.detail}", style="dim"))
    timings = ", ".join(f"{stage} {words.seconds(value)}" for stage, value in report.timings.items())
    console.print(Text(f"  {timings}", style="dim"))
    if written is not None:
        console.print(
            Text(f"{written}  {words.size(report.artifact.bytes)}  sha256 {report.artifact.sha256}"), soft_wrap=True
        )


def show_remote(conversion: Mapping[str, Any], written: Path | None) -> None:
    """A finished conversion as the service describes it."""
    verdict = Verdict(conversion["verdict"])
    console = Console(highlight=False)
    console.print(Text(words.VERDICT_WORDS[verdict], style=f"bold {COLOURS[verdict]}"))
    console.print(Text(f"  {conversion['id']}", style="dim"))
    timings = ", ".join(f"{stage} {words.seconds(value)}" for stage, value in conversion["timings"].items())
    console.print(Text(f"  {timings}", style="dim"))
    if written is not None:
        artifact = conversion["artifact"]
        console.print(Text(f"{written}  {words.size(artifact['bytes'])}  sha256 {artifact['sha256']}"), soft_wrap=True)


def show_architectures(entries: Sequence[Mapping[str, Any]]) -> None:
    table = Table("name", "family", "library", "targets", box=None, pad_edge=False)
    for entry in entries:
        library = f"{entry['library']} {entry['library_version']}"
        table.add_row(entry["name"], entry["family"], library, ", ".join(entry["targets"]))
    print_table(table)


def show_templates(entries: Sequence[KeptTemplate]) -> None:
    table = Table("key", "size", "verdict", "note", box=None, pad_edge=False)
    for entry in entries:
        verdict = entry.certificate.verdict.value if entry.certificate else "none"
        table.add_row(entry.key[:16], words.size(entry.bytes), verdict, Text(entry.reason or ""))
    print_table(table)


def show_settings(settings: Settings) -> None:
    table = Table("variable", "value", "meaning", box=None, pad_edge=False)
    for name, field in type(settings).model_fields.items():
        table.add_row(f"RECAST_{name.upper()}", Text(shown_setting(getattr(settings, name))), field.description or "")
    print_table(table)


def print_table(table: Table) -> None:
    """On a terminal wrapped to its width; elsewhere every row is one line, for whoever reads it line by line."""
    console = Console()
    if console.is_terminal:
        console.print(table)
        return
    wide = Console(width=WIDE, file=StringIO())
    wide.print(table)
    assert isinstance(wide.file, StringIO)
    console.file.writelines(f"{line.rstrip()}\n" for line in wide.file.getvalue().splitlines())


def shown_setting(value: object) -> str:
    """A setting's value; secrets are masked, an address with a password in it included."""
    if value is None:
        return "unset"
    return "**********" if isinstance(value, SecretStr) else str(value)
