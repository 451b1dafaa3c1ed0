"""The fault table: false alarms and misses of Recast's verdict and of other tools' rules, on real artifacts.

    scripts/bench/faults [--faults-per-net N] [--json FILE]

Nine small nets of different kinds are trained a few steps and exported by every way that Recast has. Every artifact is
verified in full as it is, then with wrong weights in it; then come artifacts of twins with a wrong graph. See
docs/verification.md for what the kinds mean.
"""

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from fault_table.table import Score, Table, build_table, poisoned_and_mislabelled


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--faults-per-net", type=int, default=32, help="weight faults of the negative control's kinds")
    parser.add_argument("--json", type=Path, help="write the scores to this file")
    parser.add_argument("--processes", type=int, default=2, help="nets worked on at the same time")
    arguments = parser.parse_args()
    begun = time.monotonic()

    def progress(step: str) -> None:
        print(f"[{time.monotonic() - begun:5.0f} s] {step}", file=sys.stderr, flush=True)

    table = build_table(arguments.faults_per_net, arguments.processes, progress)
    answers = poisoned_and_mislabelled()
    _print(table, answers)
    if arguments.json:
        arguments.json.write_text(json.dumps(_document(table), indent=2) + "\n")
    return 0 if _sound(table, answers) else 1


def _print(table: Table, answers: dict[str, str]) -> None:
    print(f"\n{'rule':<28}{'false alarms':>14}{'missed':>12}{'graph faults passed':>22}")
    for name, score in (*table.rules.items(), ("Recast (oracle, audits, ledger)", table.ours)):
        alarms, missed = f"{score.false_alarms} / {score.faithful}", f"{score.missed} / {score.faulty}"
        print(f"{name:<32}{alarms:>10}{missed:>12}{f'{score.graph_faults_passed} / {score.graph_faults}':>22}")
    print(f"\n{'way of ours':<32}{'false alarms':>10}{'missed':>12}")
    for name, score in table.ways.items():
        print(f"{name:<32}{f'{score.false_alarms} / {score.faithful}':>10}{f'{score.missed} / {score.faulty}':>12}")
    print(f"\n{'fault':<34}our verdicts")
    for kind, verdicts in table.kinds.items():
        print(f"{kind:<34}{', '.join(f'{verdict} {count}' for verdict, count in sorted(verdicts.items()))}")
    for kind, answer in answers.items():
        print(f"{kind:<34}{answer}")
    print(f"\n{'detection power of parity':<34}{'reported':>10}{'observed':>10}{'faults':>8}")
    for name, power in table.power.items():
        print(f"{name:<34}{power.claimed:>10.2f}{power.observed:>10.2f}{power.injected:>8}")
    reported, observed = _overall_power(table)
    print(f"{'all nets':<34}{reported:>10.2f}{observed:>10.2f}")
    for remark in table.remarks:
        print(f"- {remark}")


def _overall_power(table: Table) -> tuple[float, float]:
    powers = table.power.values()
    injected = sum(power.injected for power in powers)
    return sum(p.claimed * p.injected for p in powers) / injected, sum(p.seen for p in powers) / injected


def _document(table: Table) -> dict[str, object]:
    return {
        "ours": _counts(table.ours),
        "ways": {name: _counts(score) for name, score in table.ways.items()},
        "rules": {name: _counts(score) for name, score in table.rules.items()},
    }


def _counts(score: Score) -> dict[str, int]:
    counts = asdict(score)
    del counts["graph_faults"]
    return counts


def _sound(table: Table, answers: dict[str, str]) -> bool:
    reported, observed = _overall_power(table)
    ours = table.ours
    nothing_wrong = ours.false_alarms == ours.missed == ours.graph_faults_passed == 0
    return nothing_wrong and abs(reported - observed) <= 0.1 and all(a.startswith("fail: ") for a in answers.values())


if __name__ == "__main__":
    sys.exit(main())
