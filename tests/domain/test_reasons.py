"""The table of reasons, from which verdicts, problems, pages and docs are drawn."""

from pathlib import Path

from app.domain.reasons import REASONS
from app.domain.report import Reason

DOCS = Path(__file__).parents[2] / "docs" / "verification.md"


def test_every_reason_has_a_rule():
    assert set(REASONS) == set(Reason)


def test_the_docs_say_of_each_reason_what_the_table_says():
    drawn = [f"| `{reason}` | {rule.severity} | {rule.title} | {rule.remedy} |" for reason, rule in REASONS.items()]
    assert "\n".join(drawn) in DOCS.read_text()
