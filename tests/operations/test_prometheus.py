"""A real Prometheus scrapes four workers under load: the alerts of a fault fire, and end with it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest
import yaml

from tests.operations.files import dashboard_panels, read_yaml, require
from tests.operations.serving import SECRET, load, retry, running_service, wait_for
from tests.ports import free_port
from tokenmw.testing import ProviderServer

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from tests.servers import RedisServer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="prometheus_client needs fork for several processes")
PENDING: Final = "1s"
WITHOUT_VALUES: Final = {
    "Token expires in",  # there is none at that time
    "Next attempt in",  # it may be due
    "Connections of users",  # the service has none
}
"""The panels of the dashboard that may be empty while the provider rejects the credential."""


class Prometheus:
    """A running Prometheus.

    Args:
        url: Its address.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def get(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer of its API."""
        return (
            httpx.get(f"{self._url}/api/v1/{path}", params=parameters, trust_env=False)
            .raise_for_status()
            .json()["data"]
        )

    def alerts(self) -> dict[str, str]:
        """Return the active alerts by name, each `pending` or `firing`."""
        return {alert["labels"]["alertname"]: alert["state"] for alert in self.get("alerts")["alerts"]}

    def rules(self) -> dict[str, str]:
        """Return the health of each alert rule, "ok" if its expression was evaluated without an error."""
        (group,) = self.get("rules")["groups"]
        return {rule["name"]: rule["health"] for rule in group["rules"]}

    def shows(self, expression: str) -> bool:
        """Return whether a query of the dashboard has a value, with the variables that Grafana fills in."""
        query = expression.replace("$job", ".*").replace("$provider", ".*").replace("$__rate_interval", "10s")
        return bool(self.get("query", query=query)["result"])

    def value(self, query: str) -> float | None:
        """Return the value of a query that has one series, or None."""
        found = self.get("query", query=query)["result"]
        return float(found[0]["value"][1]) if found else None


@contextlib.contextmanager
def running_prometheus(directory: Path, target: str) -> Generator[Prometheus]:
    """Start it with the files of the example, every second in place of every 15 s, and with `for` of a second."""
    program, port = require("prometheus"), free_port()
    (configuration,) = read_yaml("prometheus.yml")
    configuration["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    configuration["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
    (rules,) = read_yaml("alerts.yml")
    for rule in rules["groups"][0]["rules"]:
        rule["for"] = PENDING
    (directory / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    (directory / "alerts.yml").write_text(yaml.safe_dump(rules))
    command = [program, "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
    command.append(f"--web.listen-address=127.0.0.1:{port}")
    with (directory / "prometheus.log").open("w") as log:
        process = subprocess.Popen(command, cwd=directory, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield Prometheus(f"http://127.0.0.1:{port}")
        finally:
            process.terminate()
            process.wait(20)


@pytest.mark.campaign
def test_alerts_of_faults_fire_and_end(tmp_path: Path, private_redis: RedisServer) -> None:
    """Without Redis one alert fires and requests are served; without the provider two, and only then requests fail."""
    require("prometheus")
    tokens = ProviderServer(clients={"crm": SECRET}, token_life=8)
    port = free_port()
    with (
        tokens.running() as base_url,
        running_prometheus(tmp_path, f"127.0.0.1:{port}") as prometheus,  # it starts at the same time as the service
        running_service(tmp_path, port=port, redis=private_redis.url, token_url=f"{base_url}/oauth2/token") as url,
        load(url) as statuses,
    ):
        wait_for("requests are counted", lambda: (prometheus.value("sum(tokenmw_token_requests_total)") or 0) > 20)
        assert {} == prometheus.alerts()
        assert (1, 1) == (prometheus.value("tokenmw_shared_up"), prometheus.value("count(tokenmw_build_info)"))

        private_redis.kill()
        wait_for("Redis is down", lambda: prometheus.alerts().get("TokenmwRedisDown") == "firing")
        assert {200} == {status for status, count in statuses.items() if count}
        private_redis.restart()
        wait_for("Redis is up", lambda: "TokenmwRedisDown" not in prometheus.alerts())
        assert 1 == prometheus.value("tokenmw_shared_up")
        assert {200} == {status for status, count in statuses.items() if count}

        tokens.clients = {"crm": "another secret"}
        expected = {"TokenmwNoToken", "TokenmwCredentialRejected"}
        wait_for("the credential is rejected", lambda: firing(prometheus) >= expected)
        assert statuses[502] > 0
        assert {200, 502} == set(statuses)
        tokens.clients = {"crm": SECRET}
        assert {"ok"} == set(prometheus.rules().values())
        empty = {title for title, query in dashboard_panels() if not prometheus.shows(query)}
        assert empty <= WITHOUT_VALUES
        retry(url)  # as the runbook says; the next attempt would be in half a minute
        wait_for("there is a token", lambda: not firing(prometheus) & expected)


def firing(prometheus: Prometheus) -> set[str]:
    """Return the names of the alerts that fire."""
    return {name for name, state in prometheus.alerts().items() if state == "firing"}
