"""The files of `examples/operations`, and what their PromQL expressions ask for."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml

from tokenmw.observe import BrokerOpened
from tokenmw.observe.measuring import initial
from tokenmw.observe.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["OPERATIONS", "alerts", "dashboard_panels", "dashboard_variables", "problems", "read_yaml", "require"]

OPERATIONS: Final = Path(__file__).parents[2] / "examples" / "operations"
_SCRAPED: Final = {"job", "instance"}
_SUFFIXES: Final = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
_SERIES: Final = {metric.name + suffix: metric for metric in METRICS for suffix in _SUFFIXES[metric.kind]}
_WORDS: Final[dict[tuple[str, str], set[str]]] = {}
for _metric, _labels in initial(BrokerOpened(1, ("p",), shared=True, version="0")):
    for _label, _value in zip(_metric.labels, _labels, strict=True):
        if _label != "provider":
            _WORDS.setdefault((_metric.name, _label), set()).add(_value)


def require(program: str) -> str:
    """Return the path of a program of Prometheus. Without it, skip the test, or fail it where it is required."""
    found = shutil.which(program)
    if found is None:
        if os.environ.get("TOKENMW_REQUIRE_PROMTOOL"):
            pytest.fail(f"There is no {program}: apt-get install prometheus")
        pytest.skip(f"There is no {program} here.")
    return found


def read_yaml(name: str) -> list[Any]:
    """Return the documents of a YAML file."""
    return list(yaml.safe_load_all((OPERATIONS / name).read_text(encoding="utf-8")))


def alerts() -> dict[str, dict[str, Any]]:
    """Return the alert rules by name."""
    ((group,),) = (document["groups"] for document in read_yaml("alerts.yml"))
    return {rule["alert"]: rule for rule in group["rules"]}


def dashboard_panels() -> Iterator[tuple[str, str]]:
    """Yield each query of the dashboard's panels with the title of the panel."""
    for panel in _dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def dashboard_variables() -> Iterator[tuple[str, str]]:
    """Yield the name and the query of each variable of the dashboard."""
    for variable in _dashboard()["templating"]["list"]:
        query = variable["query"]
        yield variable["name"], query if isinstance(query, str) else query["query"]


def _dashboard() -> Any:
    return json.loads((OPERATIONS / "dashboard.json").read_text(encoding="utf-8"))


def problems(expression: str) -> list[str]:
    """List the metrics, labels and words of labels in an expression that no observer writes."""
    found: list[str] = []
    known = set(_SCRAPED)
    for name, selector in re.findall(r"\b(tokenmw_\w+)(?:\{([^}]*)\})?", expression):
        metric = _SERIES.get(name)
        if metric is None:
            found.append(f"no metric {name}")
            continue
        labels = {*metric.labels, *(["le"] if name.endswith("_bucket") else [])}
        known |= labels
        for label, operator, value in re.findall(r"(\w+)\s*(=~|!~|!=|=)\s*\"([^\"]*)\"", selector):
            if label not in labels | _SCRAPED:
                found.append(f"{name} has no label {label}")
            words = _WORDS.get((metric.name, label))
            wanted = set(value.split("|") if "~" in operator else [value])
            if words is not None and not wanted <= words:
                found.append(f"{name} has no {label} {value}")
    for names in re.findall(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)", expression):
        found += [f"no label {label}" for label in re.split(r"\s*,\s*", names.strip()) if label not in known]
    return found
