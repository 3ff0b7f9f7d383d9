"""Alert rules and dashboard ask for metrics that exist, each alert was tested, and each has its page of the runbook."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.docs.pages import Page
from tests.docs.project import BLOB
from tests.docs.test_pages import FORBIDDEN
from tests.operations.files import (
    OPERATIONS,
    alerts,
    dashboard_panels,
    dashboard_variables,
    problems,
    read_yaml,
    require,
)
from tokenmw import cli
from tokenmw.observe.metrics import METRICS

RUNBOOK = sorted((OPERATIONS / "runbook").glob("*.md"))
PAGES = [OPERATIONS / "README.md", *RUNBOOK]
SECTIONS = ["What it means", "How to check", "What to do"]


def commands() -> set[str]:
    """Return the commands of `tokenmw`."""
    actions = cli._parser()._actions
    return {name for action in actions if isinstance(action, argparse._SubParsersAction) for name in action.choices}


@pytest.mark.parametrize("name", alerts())
def test_alert_asks_for_metrics_that_exist(name: str) -> None:
    """Metrics, labels and their words are those of the observers."""
    assert [] == problems(alerts()[name]["expr"])


def test_dashboard_asks_for_metrics_that_exist() -> None:
    """Metrics, labels and their words are those of the observers, in panels and in variables."""
    expressions = [*dashboard_panels(), *dashboard_variables()]
    assert len(expressions) > 30
    assert [] == [(title, found) for title, text in expressions if (found := problems(text))]


def test_dashboard_shows_every_metric() -> None:
    """A metric that no panel shows would be searched for in vain."""
    text = "\n".join(text for _, text in dashboard_panels())
    assert [] == [metric.name for metric in METRICS if metric.name not in text]


def test_dashboard_has_no_panel_on_another() -> None:
    """Panels are beside and below each other, within 24 columns, and their numbers are unique."""
    panels = json.loads((OPERATIONS / "dashboard.json").read_text())["panels"]
    cells = [
        (x, y)
        for position in (panel["gridPos"] for panel in panels)
        for x in range(position["x"], position["x"] + position["w"])
        for y in range(position["y"], position["y"] + position["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len(panels) == len({panel["id"] for panel in panels})


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("rate(tokenmw_fetches_total[5m])", "no metric tokenmw_fetches_total"),
        ("tokenmw_token_wait_seconds", "no metric tokenmw_token_wait_seconds"),
        ('tokenmw_redis_up{server="a"}', "tokenmw_redis_up has no label server"),
        ('tokenmw_token_requests_total{result="miss"}', "tokenmw_token_requests_total has no result miss"),
        ("sum by (tenant) (tokenmw_redis_up)", "no label tenant"),
    ],
)
def test_a_wrong_expression_is_found(expression: str, problem: str) -> None:
    """Names of metrics, of labels, and their words are compared."""
    assert [problem] == problems(expression)


def test_promtool_accepts_the_files() -> None:
    """Rules and configuration are valid."""
    promtool = require("promtool")
    for arguments in (["check", "rules", "alerts.yml"], ["check", "config", "prometheus.yml"]):
        done = subprocess.run([promtool, *arguments], cwd=OPERATIONS, capture_output=True, text=True, check=False)
        assert 0 == done.returncode, done.stdout + done.stderr


def test_alerts_fire_when_they_should() -> None:
    """The unit tests of the rules pass."""
    command = [require("promtool"), "test", "rules", "alerts_test.yml"]
    done = subprocess.run(command, cwd=OPERATIONS, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr


def test_each_alert_has_both_unit_tests() -> None:
    """One in which it fires, and one in which it does not."""
    fires: dict[str, set[bool]] = {}
    for test in read_yaml("alerts_test.yml")[0]["tests"]:
        for case in test["alert_rule_test"]:
            fires.setdefault(case["alertname"], set()).add(bool(case["exp_alerts"]))
    assert fires == {name: {True, False} for name in alerts()}


def test_each_alert_has_its_page_of_the_runbook() -> None:
    """`runbook_url` is that of the page, whose title is the alert's name; no page is left over."""
    folder = f"{BLOB}examples/operations/runbook/"
    named = {name: rule["annotations"]["runbook_url"].removeprefix(folder) for name, rule in alerts().items()}
    titles = {Page(path).text.splitlines()[0].removeprefix("# "): path.name for path in RUNBOOK}
    assert named == titles


@pytest.mark.parametrize("path", RUNBOOK, ids=lambda path: path.stem)
def test_page_of_the_runbook_says_what_to_check_and_to_do(path: Path) -> None:
    """It has the three sections; the second has the page, the command line and metrics that exist."""
    page = Page(path)
    assert SECTIONS == list(page.sections)
    places = re.findall(r"^- \*\*(.+?)\*\*:", page.sections[SECTIONS[1]], re.MULTILINE)
    assert ["Page", "Command line", "Metrics"] == places
    names = re.findall(r"`(tokenmw_\w+(?:\{[^}]*\})?)", page.text)
    series = {metric.name for metric in METRICS if metric.kind == "histogram"}
    assert names
    assert [] == [found for name in names if name not in series for found in problems(name)]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_page_is_plain_and_its_links_lead_somewhere(path: Path) -> None:
    """As the guides: short lines, plain words, files and headings that exist, commands that exist."""
    page = Page(path)
    assert len(page.text.splitlines()) <= 60
    assert [] == [line for line in page.text.splitlines() if len(line) > 120 and not line.startswith("|")]
    assert [] == [word for word in FORBIDDEN if re.search(word, page.prose, re.IGNORECASE)]
    for target in re.findall(r"\]\(([^)\s]+)\)", page.text):
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve()
        assert linked.exists(), target
        assert not anchor or anchor in Page(linked).anchors, target
    assert set(re.findall(r"`tokenmw (\w+)", page.text)) <= commands()
