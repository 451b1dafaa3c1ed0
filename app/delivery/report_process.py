"""Reads one report in a process of its own, with memory of its own that is bounded: what a conversion process wrote.

    python -P -m app.delivery.report_process page '{"links": {...}, "hosted": true}' < report.json
    python -P -m app.delivery.report_process figures < report.json

Gives the report's page, or its figures as JSON. Ends with 3 where the report is no report, where it needs more than
MEMORY, and where what it would give is more than MOST_GIVEN.
"""

import json
import resource
import sys

from app.delivery.report_figures import Figures
from app.delivery.report_page import report_page
from app.domain.report import ConversionReport
from app.processes import die_with_parent

MEMORY = 2 << 30
"""Bytes. The objects of a report take 12 to 30 times as much as its JSON, of which a message holds 32 MiB at most."""
MOST_GIVEN = 4 << 20
"""Bytes. The page of a report lists so many rows of each table; one of resnet50 has 0.5 MB."""
NOT_READABLE = 3


def main(what: str, asked: str = "{}") -> int:
    die_with_parent()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        report = ConversionReport.kept(sys.stdin.buffer.read())
        made = report_page(report, **json.loads(asked)) if what == "page" else Figures.of(report).model_dump_json()
        content = made.encode()
    except (MemoryError, ValueError):
        return NOT_READABLE
    if len(content) > MOST_GIVEN:
        return NOT_READABLE
    sys.stdout.buffer.write(content)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
