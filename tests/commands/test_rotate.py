"""`tokenmw rotate`: the values of a real Redis by the secret that seals them, and when an old secret may be removed."""

from __future__ import annotations

import re
import secrets
import time
from typing import TYPE_CHECKING

import pytest

from tests.commands.programs import OLD_SECRET, PASSWORD, SECRET, Program
from tests.servers import RedisServer
from tokenmw.redis.acl import ACL_RULES
from tokenmw.redis.keys import KeyNames
from tokenmw.redis.sealing import Sealer

if TYPE_CHECKING:
    from tests.resp import RespConnection

NAMES = KeyNames("tokenmw", name_key=OLD_SECRET)
BOTH = f"secret_key=[{SECRET!r}, {OLD_SECRET!r}], name_key={OLD_SECRET!r}"


def store(connection: RespConnection, kind: str, secret: str, *, seconds: int, count: int = 1) -> None:
    """Store values of a kind that are sealed with a secret."""
    sealer = Sealer([secret])
    for _ in range(count):
        key = NAMES.key(secrets.token_hex(16), kind)
        connection.call("SET", key, sealer.seal(b"body", key=key, version=1), "EX", seconds)


def test_an_old_secret_must_stay_until_its_last_value_expires(program: Program, redis_server: RedisServer) -> None:
    """The values are counted by kind and secret; the latest time comes from the TTLs, and the exit code is 2."""
    with redis_server.connect() as connection:
        store(connection, "token", SECRET, seconds=7200, count=2)
        store(connection, "session", OLD_SECRET, seconds=1000, count=3)
        store(connection, "note", OLD_SECRET, seconds=50)
        connection.call("SET", "tokenmw:v1:{marker}:marker", "not sealed")
    program.write(redis_server.url, options=BOTH)
    done = program.run("rotate")
    assert done.returncode == 2, done.stderr
    assert re.search(r"ok +secret_key\[0\] +seals what is written: 2 tokens", done.stdout)
    assert re.search(r"WARN +secret_key\[1\] +must stay: 1 failure note, 3 sessions\. ", done.stdout)
    assert re.search(r"The last one expires in (9..|1000) s at the latest, at 20\d\d-", done.stdout)
    rows = program.json("rotate", code=2)["secrets"]
    assert [(row["secret"], row["counts"], row["never"]) for row in rows] == [
        ("secret_key[0]", {"tokens": 2}, 0),
        ("secret_key[1]", {"sessions": 3, "failure notes": 1}, 0),
    ]
    assert 900 < rows[1]["expire_in"] <= 1000


def test_an_old_secret_may_be_removed_when_nothing_is_sealed_with_it(
    program: Program, redis_server: RedisServer
) -> None:
    """The exit code is 0; other namespaces do not count."""
    with redis_server.connect() as connection:
        store(connection, "token", SECRET, seconds=7200)
        connection.call("SET", b"other:v1:{a}:token", Sealer([OLD_SECRET]).seal(b"", key=b"", version=1))
    program.write(redis_server.url, options=BOTH)
    code, output, _ = program.call("rotate")
    assert code == 0
    assert re.search(r"ok +secret_key\[1\] +seals nothing: if it is an old secret, it may be removed", output)


def test_a_secret_that_is_missing_is_an_error(program: Program, redis_server: RedisServer) -> None:
    """What is sealed with a secret that the configuration does not have is counted, and the exit code is 1."""
    with redis_server.connect() as connection:
        store(connection, "session", OLD_SECRET, seconds=100, count=2)
    program.write(redis_server.url, options=f"secret_key={SECRET!r}, name_key={OLD_SECRET!r}")
    code, output, _ = program.call("rotate")
    assert code == 1
    assert "2 sessions are sealed with a secret that this configuration does not have" in output


def test_names_that_follow_a_secret_are_a_warning(program: Program, redis_server: RedisServer) -> None:
    """Without a `name_key`, the removal of the last secret renames all keys, although nothing is sealed with it."""
    program.write(redis_server.url, options=f"secret_key=[{SECRET!r}, {OLD_SECRET!r}]")
    code, output, _ = program.call("rotate")
    assert code == 2
    assert "Give name_key= the secret that was used first." in output


def test_values_that_are_not_sealed(program: Program, redis_server: RedisServer) -> None:
    """Without a secret there is nothing to rotate; beside sealed values, unsealed ones are a warning."""
    with redis_server.connect() as connection:
        key = NAMES.key("a" * 32, "token")
        connection.call("SET", key, Sealer([]).seal(b"body", key=key, version=1), "EX", 100)
        connection.call("SET", NAMES.key("b" * 32, "session"), b"short", "EX", 100)
    program.write(redis_server.url, options="")
    assert "values are not sealed, so that there is nothing to rotate: 1 token" in program.call("rotate")[1]
    program.write(redis_server.url, options=BOTH)
    code, output, _ = program.call("rotate")
    assert code == 2
    assert re.search(r"WARN +not sealed +1 token", output)
    assert re.search(r"WARN +damaged +1 session", output)


def test_scan_needs_a_permission_of_its_own(program: Program) -> None:
    """A user with the permissions of a broker may not run SCAN; the line has the rule to add."""
    with RedisServer() as server:
        rules = ACL_RULES.replace("<namespace>", "tokenmw").split()
        server.command("ACL", "SETUSER", "lean", "reset", "on", f">{PASSWORD}", *rules)
        program.write(f"redis://lean:{PASSWORD}@127.0.0.1:{server.port}/0")
        code, output, _ = program.call("rotate")
        server.command("ACL", "SETUSER", "lean", "+scan")
        assert program.call("rotate")[0] == 0
    assert code == 1
    assert "ACL SETUSER <user> +scan" in output
    assert "secret_key" not in output, "nothing was counted"


@pytest.mark.campaign
def test_each_step_is_small(program: Program, private_redis: RedisServer) -> None:
    """Among 100 000 sessions, no command keeps the server for longer than a few milliseconds, and none is KEYS."""
    script = (
        "for i = 1, 100000 do redis.call('SET', 'tokenmw:v1:{' .. i .. '}:session', ARGV[1], 'EX', 1000) end return 1"
    )
    with private_redis.connect(within=60) as connection:
        connection.call("EVAL", script, 0, Sealer([OLD_SECRET]).header(0) + b"x" * 44)
        connection.call("CONFIG", "RESETSTAT")
    program.write(private_redis.url, options=BOTH)
    rows = program.json("rotate", code=2)["secrets"]
    stats = private_redis.command("INFO", "commandstats").decode()
    calls, each = re.findall(r"^cmdstat_scan:calls=(\d+),usec=\d+,usec_per_call=([\d.]+)", stats, re.MULTILINE)[0]
    assert rows[0]["counts"]["sessions"] == pytest.approx(100_000, rel=0.01)
    assert int(calls) > 300
    assert float(each) < 2000
    assert "cmdstat_keys" not in stats


def test_each_node_of_a_cluster_is_read(program: Program) -> None:
    """A cluster's keys are counted on its primaries."""
    with RedisServer("--cluster-enabled", "yes") as server:
        server.command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        deadline = time.monotonic() + 10
        while b"cluster_state:ok" not in server.command("CLUSTER", "INFO"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with server.connect() as connection:
            store(connection, "session", OLD_SECRET, seconds=100, count=20)
        program.write(server.url.replace("redis://", "redis+cluster://").removesuffix("/0"), options=BOTH)
        rows = program.json("rotate", code=2)["secrets"]
    assert [row["counts"] for row in rows] == [{"sessions": 20}]


def test_connections_of_users_do_not_expire(program: Program, redis_server: RedisServer) -> None:
    """Those in the store that are sealed with an old secret must be sealed again; the line says how."""
    options = (
        f"{BOTH}, connections=Connections("
        '{"app": OAuthApp(client_id="a", client_secret="canary-of-an-app", issuer="https://idp.example")}, '
        f"store=RedisStore({redis_server.url!r}), subject=lambda connection: None)"
    )
    keys = KeyNames("tokenmw", name_key=None)
    value = Sealer([OLD_SECRET]).seal(b"document", key=b"key", version=1)
    with redis_server.connect() as connection:
        row = ("version", 1, "value", value, "app", "app", "subject", "canary-of-a-user")
        connection.call("HSET", keys.key("connections", "d"), *row)
        connection.call("ZADD", keys.key("connections", "index"), 0, "d")
    program.write(redis_server.url, options=options)
    code, output, _ = program.call("rotate")
    assert code == 2, output
    assert "must stay: 1 connection of a user. Connections do not expire: run `await broker.connections" in output
