"""What compose.yml and kubernetes.yml say works: Redis with its ACL and policy, probes, variables, the service."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx
import pytest

from tests.operations.files import OPERATIONS, read_yaml
from tests.operations.serving import OPERATOR, SECRET, running_service, wait_for
from tests.ports import free_port
from tests.redis.test_acl import refused, use
from tests.resp import RedisServerError, RespConnection
from tests.servers import RedisServer
from tokenmw.redis.acl import ACL_RULES
from tokenmw.testing import ProviderServer

if TYPE_CHECKING:
    from collections.abc import Generator

PASSWORD: Final = "a-password-of-the-tests"
NAMESPACE: Final = "tokenmw"
(COMPOSE,) = read_yaml("compose.yml")
DEPLOYMENT, SERVICE = read_yaml("kubernetes.yml")
(CONTAINER,) = DEPLOYMENT["spec"]["template"]["spec"]["containers"]
NAMES = set(re.findall(r"environ\[['\"](\w+)['\"]\]", (OPERATIONS / "app.py").read_text())) | {
    "PROMETHEUS_MULTIPROC_DIR"
}


def content(name: str) -> str:
    """Return the content of a configuration of compose.yml, with the variables that Compose fills in."""
    text: str = COMPOSE["configs"][name]["content"]
    return re.sub(r"\$\{REDIS_PASSWORD:\?\}", PASSWORD, text)


class ComposeRedis(RedisServer):
    """The server that compose.yml configures, with a further user for the commands of tests."""

    def connect(self, *, within: float = 5.0, user: str = "test") -> RespConnection:
        """Open a connection of a user."""
        connection = RespConnection(("127.0.0.1", self.port), within=within)
        connection.call("AUTH", user, PASSWORD)
        return connection


@pytest.fixture
def server(tmp_path: Path) -> Generator[ComposeRedis]:
    """Start the server with the configuration and the ACL file of compose.yml, and a further user for the test."""
    users = tmp_path / "users.acl"
    users.write_text(f"{content('redis_users')}user test on >{PASSWORD} ~* &* +@all\n")
    conf = content("redis_conf").replace("/etc/redis/users.acl", str(users))
    options = [
        part
        for line in conf.splitlines()
        if line and not line.startswith(("#", "dir "))
        for part in (f"--{line.split(maxsplit=1)[0]}", line.split(maxsplit=1)[1])
    ]
    # Debian's: an ACL file of the wheel's server is the same, and redis.conf is Redis' own.
    found = shutil.which("redis-server")
    with ComposeRedis(*options, executable=Path(found) if found else None) as started:
        yield started


async def test_the_package_works_over_the_redis_of_compose(server: ComposeRedis) -> None:
    """All that a broker does is allowed by the ACL file, and the log of refused commands is empty."""
    server.command("ACL", "LOG", "RESET")
    await use(f"redis://tokenmw:{PASSWORD}@127.0.0.1:{server.port}/0", server)
    assert set() == refused(server)


@pytest.mark.parametrize(
    "words",
    [
        ("GET", "another:key"),
        ("SET", "another:key", "v"),
        ("FLUSHALL",),
        ("KEYS", "*"),
        ("CONFIG", "SET", "maxmemory", "0"),
        ("ACL", "LIST"),
        ("EVAL", "return redis.call('set', 'another:key', 'v')", 0),
        ("PUBLISH", "another", "m"),
    ],
    ids=lambda words: words[0],
)
def test_the_acl_refuses_what_the_service_does_not_need(server: ComposeRedis, words: tuple[str | int, ...]) -> None:
    """Other keys, other channels, administration: NOPERM."""
    with (
        server.connect(user="tokenmw") as connection,
        pytest.raises(RedisServerError, match=r"NOPERM|can't access|ACL failure"),
    ):
        connection.call(*words)
    assert 1 == len(server.command("ACL", "LOG"))


def test_nothing_is_allowed_without_the_password(server: ComposeRedis) -> None:
    """The default user is off."""
    with RespConnection(("127.0.0.1", server.port)) as connection, pytest.raises(RedisServerError, match="NOAUTH"):
        connection.call("PING")


def test_the_redis_of_compose_does_not_evict(server: ComposeRedis) -> None:
    """It refuses writes when it is full, and keeps an append-only file."""
    found = server.command("CONFIG", "GET", "maxmemory-policy"), server.command("CONFIG", "GET", "maxmemory")
    assert ([b"maxmemory-policy", b"noeviction"], [b"maxmemory", b"268435456"]) == found
    # `RedisServer` switches it off before its further options switch it on.
    assert [b"appendonly", b"yes"] == server.command("CONFIG", "GET", "appendonly")


def test_the_acl_is_that_of_the_advice() -> None:
    """The file has the rights that the log line and `tokenmw check` name, and no others."""
    (line,) = (line for line in content("redis_users").splitlines() if line.startswith("user tokenmw "))
    assert [
        "user",
        "tokenmw",
        "on",
        f">{PASSWORD}",
        *ACL_RULES.replace("<namespace>", NAMESPACE).split(),
    ] == line.split()


def test_both_files_have_the_variables_of_the_program() -> None:
    """A variable that is missing would be a KeyError at the start."""
    assert NAMES == set(COMPOSE["services"]["app"]["environment"])
    assert NAMES == {variable["name"] for variable in CONTAINER["env"]}


def test_metrics_of_workers_are_in_a_directory_of_the_container() -> None:
    """It is writable, of one container alone, and named in the variable."""
    named = {variable["name"]: variable.get("value") for variable in CONTAINER["env"]}["PROMETHEUS_MULTIPROC_DIR"]
    (mount,) = (mount for mount in CONTAINER["volumeMounts"] if mount["mountPath"] == named)
    (volume,) = (
        volume for volume in DEPLOYMENT["spec"]["template"]["spec"]["volumes"] if volume["name"] == mount["name"]
    )
    assert "Memory" == volume["emptyDir"]["medium"]
    app = COMPOSE["services"]["app"]
    assert [app["environment"]["PROMETHEUS_MULTIPROC_DIR"]] == [path.partition(":")[0] for path in app["tmpfs"]]


def test_the_ports_are_one() -> None:
    """Probes, metrics and the service use the port on which uvicorn listens."""
    for command in (CONTAINER["command"], COMPOSE["services"]["app"]["command"]):
        assert "8000" == command[command.index("--port") + 1]
        assert "4" == command[command.index("--workers") + 1]
    assert [("http", 8000)] == [(port["name"], port["containerPort"]) for port in CONTAINER["ports"]]
    template = DEPLOYMENT["spec"]["template"]["metadata"]
    assert ("8000", "/metrics") == tuple(template["annotations"][f"prometheus.io/{name}"] for name in ("port", "path"))
    assert "http" == SERVICE["spec"]["ports"][0]["targetPort"]
    assert SERVICE["spec"]["selector"] == template["labels"] == DEPLOYMENT["spec"]["selector"]["matchLabels"]
    (prometheus,) = read_yaml("prometheus.yml")
    assert [{"targets": ["app:8000"]}] == prometheus["scrape_configs"][0]["static_configs"]


def test_probes_answer_while_redis_is_unavailable(tmp_path: Path) -> None:
    """A service that starts without Redis is live and ready, and serves requests."""
    paths = {CONTAINER[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
    assert {"/_tokenmw/livez", "/_tokenmw/readyz"} == paths
    assert "/_tokenmw/livez" in COMPOSE["services"]["app"]["healthcheck"]["test"][-1]
    assert not {"/_tokenmw/readyz"} & {CONTAINER[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness")}
    nowhere = f"redis://127.0.0.1:{free_port()}/0"
    with (
        ProviderServer(clients={"crm": SECRET}).running() as base_url,
        running_service(
            tmp_path, port=free_port(), redis=nowhere, token_url=f"{base_url}/oauth2/token", workers=1
        ) as url,
    ):
        assert {200} == {httpx.get(f"{url}{path}", trust_env=False).status_code for path in paths}
        assert "Bearer" == httpx.get(url, headers={"x-api-key": "k"}, trust_env=False).json()["token_type"]
        status = httpx.get(f"{url}/_tokenmw/status.json", auth=OPERATOR, trust_env=False).json()
        assert "down" == status["redis"]["state"]
        assert [401, 401] == [
            httpx.get(f"{url}/_tokenmw/", auth=auth, trust_env=False).status_code for auth in (None, ("operator", "x"))
        ]
        wait_for("the state is measured", lambda: "tokenmw_shared_up 0.0" in metrics(url))


def metrics(url: str) -> str:
    """Return the metrics of all workers."""
    return httpx.get(f"{url}/metrics", trust_env=False).text


def test_the_health_check_of_redis_accepts_an_answer_without_a_password(server: ComposeRedis) -> None:
    """It is healthy while it answers, and unhealthy when it does not."""
    if shutil.which("redis-cli") is None:
        pytest.skip("There is no redis-cli here.")
    command = COMPOSE["services"]["redis"]["healthcheck"]["test"][-1].replace(
        "redis-cli", f"redis-cli -p {server.port}"
    )
    assert 0 == subprocess.run(["sh", "-c", command], check=False).returncode
    server.kill()
    assert 0 != subprocess.run(["sh", "-c", command], check=False).returncode
