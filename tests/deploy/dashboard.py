"""The queries of the dashboard as rules, which promtool can check: python -m tests.deploy.dashboard"""

import json
import sys
from pathlib import Path

import yaml

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"


def queries() -> list[str]:
    """What the panels ask of Prometheus."""
    panels = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


if __name__ == "__main__":
    rules = [{"record": f"dashboard:{number}", "expr": expr} for number, expr in enumerate(queries())]
    sys.stdout.write(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
