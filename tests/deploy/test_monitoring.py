"""Alert rules and dashboard: they ask for metrics that exist, and lead to what to do. scripts/check-deploy has promtool
read them too."""

import re
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml

from app.api import observe, operations
from app.database.sums import Sum
from app.domain.conversion import State
from app.jobs import metrics
from tests.deploy.dashboard import MONITORING, queries

PROJECT = Path(__file__).parents[2]
RULES = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"][0]["rules"]
METRIC = re.compile(r"\brecast_\w+")
DURATION = re.compile(r"(\d+[smhd])+")


def shown() -> set[str]:
    """Names of all samples that /metrics may show."""
    names = {name for name in _names(metrics.REGISTRY.collect())}
    names |= set(_names(observe.REQUESTS.collect())) | set(_names(observe.SECONDS.collect()))
    sandbox = operations.Sandbox(required="none", in_force=["seccomp"], missing={})
    text = operations._conversion_gauges(dict.fromkeys(State, 1), 1.0, 1) + operations._sandbox_gauge(sandbox)
    return names | set(METRIC.findall(text.decode()))


def _names(families: Iterable[object]) -> Iterable[str]:
    for family in families:
        suffixes = metrics.SUFFIXES.get(family.type, ("",))  # type: ignore[attr-defined]
        yield from (family.name + suffix for suffix in suffixes)  # type: ignore[attr-defined]


def test_every_metric_that_is_asked_for_is_shown():
    asked = {name for expr in [*queries(), *(rule["expr"] for rule in RULES)] for name in METRIC.findall(expr)}
    assert asked <= shown()
    assert len(asked) > 8


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_tells_how_bad_it_is_and_where_the_remedy_stands(rule):
    assert rule["labels"]["severity"] in ("info", "warning", "critical")
    assert DURATION.fullmatch(rule.get("for", "1m"))
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^#+ (\w+)$", (PROJECT / page).read_text(), re.MULTILINE)
    assert anchor in {heading.lower() for heading in headings}


def test_every_alert_is_tried_in_quiet_and_in_trouble():
    tests = yaml.safe_load((MONITORING / "alerts-test.yaml").read_text())["tests"]
    quiet = {one["alertname"] for test in tests for one in test["alert_rule_test"] if "exp_alerts" not in one}
    raised = {one["alertname"] for test in tests for one in test["alert_rule_test"] if one.get("exp_alerts")}
    assert quiet == raised == {rule["alert"] for rule in RULES}


def test_sums_of_workers_carry_the_names_that_are_asked_for():
    known = [Sum("recast_deaths_total", {"of": "worker"}, 2.0)]
    assert b'recast_deaths_total{of="worker"} 2.0' in metrics.exposition(known)
