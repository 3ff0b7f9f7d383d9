"""A user with exactly the rights that the advice names: everything works, on Redis and on Valkey."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.brokers import runtime_of
from tests.docs.pages import page
from tests.redis.clusters import needs_cluster_urls
from tests.redis.waiting import until
from tests.servers import RedisServer, find_server, wheel_server
from tokenmw import Limits, TokenBroker
from tokenmw.providers import StaticToken
from tokenmw.redis.acl import ACL_RULES, CATEGORIES

if TYPE_CHECKING:
    from pathlib import Path

SERVERS: list[Path] = sorted({one for one in (find_server(), wheel_server()) if one is not None})
SECRET = "a-secret-of-some-length"


@pytest.fixture(params=SERVERS, ids=lambda path: path.name)
def executable(request: pytest.FixtureRequest) -> Path:
    """Each kind of server that this machine has."""
    path: Path = request.param
    return path


def set_user(server: RedisServer) -> str:
    """Make a user with the rules of the advice, and return the userinfo of a URL."""
    server.command(
        "ACL", "SETUSER", "lean", "reset", "on", ">lean", *ACL_RULES.replace("<namespace>", "tokenmw").split()
    )
    server.command("ACL", "LOG", "RESET")
    return "lean:lean@"


def refused(server: RedisServer) -> set[str]:
    """Return what the ACL has refused, but for the name of the client, which is nice to have."""
    entries: list[list[Any]] = server.command("ACL", "LOG")
    return {entry[entry.index(b"object") + 1].decode() for entry in entries} - {"client|setinfo", "client"}


async def use(url: str, server: RedisServer) -> None:
    """Do all that a broker does with Redis."""
    provider = StaticToken(lambda: "t", credential_id="c")
    limits = Limits(command_seconds=5.0)
    async with TokenBroker({"crm": provider}, redis=url, secret_key=SECRET, limits=limits) as broker:
        assert broker.status().shared == "up"
        runtime: Any = runtime_of(broker)
        for _ in range(2):  # the second time the server does not know the scripts
            token = await broker.token("crm")
            await broker.session_id("k")
            session = broker._data.sessions
            for key in session:
                runtime.session_sync.queue(key, session.active(key))
            await runtime.session_sync.send_touches()
            runtime.session_sync.begin_reupload()
            await runtime.session_sync.send_reupload()
            await runtime._redis_jobs.recover()
            await runtime._redis_jobs.compare_tokens()
            await broker.invalidate(token)
            await broker.reset_session("k")
            heartbeat, _ = await runtime.fleet._heartbeat()
            assert await runtime.fleet._store.write(heartbeat)
            assert len(await runtime.fleet._store.read()) == 1
            server.command("DEL", *(runtime.session_sync.key(key, session.active(key)) for key in session))
            runtime.session_sync.begin_reupload()
            await runtime.session_sync.send_reupload()
            await runtime.session_sync.send_touches()
            server.command("SCRIPT", "FLUSH")
        await until(lambda: not broker.status().unshared, within=5)  # housekeeping may be about to upload again
        status = broker.status()
        assert (status.shared, status.shared_error) == ("up", "")


@pytest.mark.parametrize("database", [0, 1])
async def test_rules_of_the_advice_suffice(executable: Path, database: int) -> None:
    """No command and no key is refused."""
    with RedisServer(executable=executable) as server:
        await use(f"redis://{set_user(server)}127.0.0.1:{server.port}/{database}", server)
        assert refused(server) == set()


@needs_cluster_urls
async def test_rules_of_the_advice_suffice_in_a_cluster(executable: Path) -> None:
    """The client needs the slots, and the positions of keys in commands."""
    with RedisServer("--cluster-enabled", "yes", executable=executable) as server:
        server.command("CLUSTER", "ADDSLOTS", *range(16384))
        deadline = time.monotonic() + 10
        while b"cluster_state:ok" not in server.command("CLUSTER", "INFO"):
            assert time.monotonic() < deadline
            time.sleep(0.01)  # noqa: ASYNC251  nothing else runs in the loop
        await use(f"redis+cluster://{set_user(server)}127.0.0.1:{server.port}", server)
        assert refused(server) == set()


@pytest.mark.parametrize("name", sorted(CATEGORIES))
def test_each_right_is_one_that_servers_know(executable: Path, name: str) -> None:
    """The line can be pasted into any of them, and the category in the advice is that of the server."""
    with RedisServer(executable=executable) as server:
        server.command("ACL", "SETUSER", "lean", "reset", f"+{name}")
        known = {word.decode() for word in server.command("ACL", "CAT", CATEGORIES[name])}
        assert [word for word in known if word == name or word.startswith(f"{name}|")]


def test_guide_has_the_rules() -> None:
    """They are those of the log line."""
    assert f"\nACL SETUSER <user> {ACL_RULES}\n" in page("troubleshooting.md").text
