"""`tokenmw inspect`: what it shows of a real Redis, and what it says where there is nothing to show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.commands.programs import OLD_SECRET, PASSWORD, SECRET, Program
from tests.ports import free_port
from tests.servers import RedisServer
from tokenmw.commands.spans import span

if TYPE_CHECKING:
    from tokenmw.testing import ProviderServer


def test_days_are_not_shown_as_seconds() -> None:
    """A tombstone lasts for 30 days."""
    assert [span(seconds) for seconds in (0.021, 4.06, 3599, 2_591_732)] == ["0.02 s", "4.1 s", "3599 s", "30 days"]


def test_a_token_is_shown_without_its_value(program: Program, redis_server: RedisServer) -> None:
    """Version, age, seconds left and refresh point are shown; so is why other providers have no shared token."""
    program.write(redis_server.url)
    program.use()
    done = program.run("inspect")
    assert done.returncode == 0, done.stderr
    assert "3600 s" in done.stdout
    assert "due in 2" in done.stdout
    assert "depends on the request" in done.stdout
    (crm,) = program.json("inspect", "crm")["providers"]
    token = crm["token"]
    assert crm["state"] == "valid"
    assert (crm["lease"], crm["failure"], crm["tombstone"]) == (None, None, None)
    assert token["lifetime"] == 3600
    assert token["age"] + token["left"] == pytest.approx(3600)
    # The window is the last quarter; an instance begins in its first fifth.
    assert token["refresh_from"] == pytest.approx(token["left"] - 900)
    assert token["refresh_until"] == pytest.approx(token["left"] - 720)
    assert token["current_key"]


def test_a_tombstone_is_shown(program: Program, redis_server: RedisServer) -> None:
    """After an invalidation there is no token, and the versions up to the tombstone's are invalid."""
    program.write(redis_server.url)
    program.use(invalidates=True)
    (crm,) = program.json("inspect", "crm")["providers"]
    assert (crm["state"], crm["token"]) == ("none", None)
    assert crm["tombstone"]["version"] > 0
    assert crm["tombstone"]["left"] > 0


def test_a_failure_note_is_an_error(program: Program, redis_server: RedisServer) -> None:
    """The note's reason, its writer and the time that is left are shown, and the exit code is 1."""
    program.write(redis_server.url, secret="canary-of-a-wrong-secret")
    program.use()
    done = program.call("inspect", "crm")
    assert done[0] == 1
    assert "rejected: " in done[1]
    assert "invalid_client" in done[1]
    (crm,) = program.json("inspect", "crm", code=1)["providers"]
    assert (crm["state"], crm["failure"]["attempts"]) == ("failing", 1)


def test_a_key_ring_without_the_key_is_an_error(program: Program, redis_server: RedisServer) -> None:
    """A token that is sealed with another secret is named, with the fix, and is left alone."""
    program.write(redis_server.url, options=f"secret_key={OLD_SECRET!r}, name_key={SECRET!r}")
    program.use()
    program.write(redis_server.url, options=f"secret_key={SECRET!r}, name_key={SECRET!r}")
    done = program.call("inspect", "crm")
    assert done[0] == 1
    assert "sealed with a secret that this configuration does not have: put it into secret_key=[…]" in done[1]
    assert list(redis_server.command("KEYS", "*:token"))


def test_nothing_is_changed(program: Program, redis_server: RedisServer) -> None:
    """A damaged token, which an instance deletes, stays, and no key is added."""
    program.write(redis_server.url)
    program.use()
    (key,) = redis_server.command("KEYS", "*:token")
    redis_server.command("SET", key, b"damaged, and long enough for a header", "EX", 100)
    before = sorted(redis_server.command("KEYS", "*"))
    done = program.call("inspect", "crm")
    assert done[0] == 1
    assert "damaged" in done[1]
    assert sorted(redis_server.command("KEYS", "*")) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["crn"], "There is no provider 'crn': did you mean 'crm'? The broker has: crm, static, tenant."),
        (["tenant"], "tenant: its credentials depend on the request, so that it has no one token."),
        (["static"], "static: its token is not shared"),
    ],
)
def test_a_wrong_provider_is_one_line(
    program: Program, redis_server: RedisServer, arguments: list[str], said: str
) -> None:
    """The line is on stderr, and the exit code is 1."""
    program.write(redis_server.url)
    done = program.call("inspect", *arguments)
    assert done[:2] == (1, "")
    assert f"tokenmw inspect: {said}" in done[2]


def test_without_redis_there_is_nothing_to_inspect(program: Program) -> None:
    """The line says that nothing is shared."""
    program.write(None)
    done = program.call("inspect")
    assert done[0] == 1
    assert "tokenmw inspect: The broker has no redis=…: nothing is shared" in done[2]


def test_an_unavailable_redis_is_one_line(program: Program) -> None:
    """The line has its address and the fix, and not the password."""
    port = free_port()
    program.write(f"redis://:{PASSWORD}@127.0.0.1:{port}/0")
    done = program.call("inspect")
    assert done[0] == 1
    said = f"Redis: 127.0.0.1:{port} cannot be used (refused): nothing listens there: check host and port"
    assert f"tokenmw inspect: {said}" in done[2]


def test_a_redis_that_refuses_is_one_line(program: Program) -> None:
    """A wrong password and a missing permission are named, each with its fix."""
    with RedisServer("--requirepass", "another") as server:
        program.write(f"redis://:{PASSWORD}@127.0.0.1:{server.port}/0")
        refused = program.call("inspect")
    with RedisServer() as server:
        server.command("ACL", "SETUSER", "lean", "reset", "on", f">{PASSWORD}", "~*", "+ping")
        program.write(f"redis://lean:{PASSWORD}@127.0.0.1:{server.port}/0")
        forbidden = program.call("inspect")
    assert (refused[0], forbidden[0]) == (1, 1)
    assert "it refuses the user or the password of redis=" in refused[2]
    assert "ACL SETUSER <user>" in forbidden[2]


def test_a_full_redis_can_be_inspected(program: Program) -> None:
    """What takes no writes is read all the same."""
    with RedisServer("--maxmemory", "100mb") as server:
        program.write(server.url)
        program.use()
        server.command("CONFIG", "SET", "maxmemory", "1")
        assert program.json("inspect", "crm")["providers"][0]["state"] == "valid"


def test_of_several_brokers_one_is_named(
    program: Program, redis_server: RedisServer, provider_server: ProviderServer
) -> None:
    """A collection of brokers is no broker; the line says how to name one."""
    program.write(redis_server.url)
    done = program.call("inspect", name="program:brokers")
    assert done[0] == 1
    assert "program:brokers is a dict of TokenBrokers. Assign the one that you mean to a global name" in done[2]
    assert provider_server.calls.total() == 0
