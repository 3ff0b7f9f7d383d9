"""The servers behave as the tests of outages expect."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import servers
from tests.resp import RedisServerError, RespConnection
from tests.servers import RedisServer


def test_replies_have_python_types(redis_server: RedisServer) -> None:
    """Every type of reply is returned as the right Python type."""
    assert redis_server.command("SET", "a", b"\x00\r\n\xff") == "OK"
    assert redis_server.command("GET", "a") == b"\x00\r\n\xff"
    assert redis_server.command("GET", "b") is None
    assert redis_server.command("INCRBY", "n", 41) == 41
    assert redis_server.command("EVAL", "return {1, {'x', false}}", 0) == [1, [b"x", None]]


def test_an_error_reply_is_raised(redis_server: RedisServer) -> None:
    """The error reply to a command is raised as an exception."""
    redis_server.command("SET", "a", "text")
    with pytest.raises(RedisServerError, match="not an integer"):
        redis_server.command("INCR", "a")


@pytest.mark.parametrize("attempt", ["first", "second"])
def test_the_shared_server_is_empty_at_the_start_of_each_test(redis_server: RedisServer, attempt: str) -> None:
    """It has no keys and scripts of an earlier test."""
    # The SHA-1 of "return 1", by which Redis identifies the script.
    script = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"
    assert redis_server.command("DBSIZE") == 0
    assert redis_server.command("SCRIPT", "EXISTS", script) == [0]
    redis_server.command("SET", "left", "behind")
    redis_server.command("EVAL", "return 1", 0)
    assert redis_server.command("SCRIPT", "EXISTS", script) == [1]


def test_a_killed_server_refuses_connections(private_redis: RedisServer) -> None:
    """After kill(), the port and the unix socket refuse connections."""
    private_redis.kill()
    with pytest.raises(ConnectionRefusedError):
        private_redis.connect()
    with pytest.raises(ConnectionRefusedError):
        RespConnection(private_redis.unix_path)
    assert not private_redis.answers()


def test_a_frozen_server_accepts_connections_and_does_not_reply(private_redis: RedisServer) -> None:
    """After freeze(), a command times out; after thaw(), it succeeds."""
    private_redis.freeze()
    with private_redis.connect(within=0.1) as connection, pytest.raises(TimeoutError):
        connection.call("PING")
    assert not private_redis.answers(within=0.1)
    private_redis.thaw()
    assert private_redis.command("PING") == "PONG"


def test_a_server_can_be_frozen_twice(private_redis: RedisServer) -> None:
    """A second freeze() returns, and one thaw() is enough."""
    private_redis.freeze()
    private_redis.freeze()
    private_redis.thaw()
    assert private_redis.answers()


@pytest.mark.parametrize("state", ["running", "killed", "frozen"])
def test_a_restarted_server_is_empty_and_has_the_same_port(private_redis: RedisServer, state: str) -> None:
    """restart() starts a new process on the same port, in any state of the old one."""
    port, pid = private_redis.port, private_redis.pid
    private_redis.command("SET", "a", 1)
    if state == "killed":
        private_redis.kill()
    elif state == "frozen":
        private_redis.freeze()
    private_redis.restart()
    assert private_redis.port == port
    assert private_redis.pid != pid
    assert private_redis.command("DBSIZE") == 0


@pytest.mark.parametrize("state", ["running", "frozen"])
def test_a_restart_can_keep_the_data(private_redis: RedisServer, state: str) -> None:
    """With empty=False, keys and expiry times are kept."""
    private_redis.command("SET", "a", 1, "EX", 100)
    if state == "frozen":
        private_redis.freeze()
    private_redis.restart(empty=False)
    assert private_redis.command("GET", "a") == b"1"
    assert 95 <= private_redis.command("TTL", "a") <= 100


def test_the_unix_socket_leads_to_the_same_server(redis_server: RedisServer) -> None:
    """A value written over TCP is read over the unix socket."""
    redis_server.command("SET", "a", 1)
    with RespConnection(redis_server.unix_path) as connection:
        assert connection.call("GET", "a") == b"1"
    assert redis_server.unix_url == f"unix://{redis_server.unix_path}?db=0"


def test_server_options_are_passed_on() -> None:
    """A password and a memory limit are set; `command` and the URL use the password."""
    with RedisServer("--requirepass", "se/same", "--maxmemory", "3mb") as server:
        assert server.command("CONFIG", "GET", "maxmemory") == [b"maxmemory", str(3 * 1024**2).encode()]
        assert server.url == f"redis://:se%2Fsame@127.0.0.1:{server.port}/0"
        connection = RespConnection(("127.0.0.1", server.port))
        with connection, pytest.raises(RedisServerError, match="NOAUTH"):
            connection.call("DBSIZE")


def test_a_failed_start_raises_an_error_with_the_log() -> None:
    """The error has the output of the server, and the server counts as not started."""
    server = RedisServer("--no-such-option", "1")
    with pytest.raises(RuntimeError, match="no-such-option"):
        server.start()
    with pytest.raises(RuntimeError, match="not started"):
        _ = server.pid


def test_a_used_port_is_replaced_by_another(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server whose port is used by another server starts on the next free port."""
    free_port = servers._free_port
    ports = iter([redis_server.port, free_port()])
    monkeypatch.setattr(servers, "_free_port", lambda: next(ports))
    with RedisServer() as server:
        assert server.port != redis_server.port
        assert server.answers()


@pytest.mark.parametrize("state", ["running", "killed", "frozen"])
def test_stop_removes_the_process_and_its_directory(state: str) -> None:
    """stop() kills the process in any state and removes its directory; a second stop() does nothing."""
    server = RedisServer().start()
    pid, directory = server.pid, server.unix_path.parent
    if state == "killed":
        server.kill()
    elif state == "frozen":
        server.freeze()
    server.stop()
    server.stop()
    assert not directory.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_server_that_is_not_stopped_exits_with_the_run() -> None:
    """A run that ends with an exception leaves no server process."""
    program = "from tests.servers import RedisServer as S; print(S().start().pid, flush=True); 1 / 0"
    root = Path(__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False)
    assert "ZeroDivisionError" in run.stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int(run.stdout), 0)


def test_redis_server_takes_precedence_over_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """$REDIS_SERVER takes precedence over PATH, and a wrong path in it is an error."""
    chosen = tmp_path / "my-server"
    chosen.touch(mode=0o755)
    monkeypatch.setenv("REDIS_SERVER", str(chosen))
    assert servers.find_server() == chosen
    monkeypatch.setenv("REDIS_SERVER", str(tmp_path / "no-server"))
    with pytest.raises(FileNotFoundError, match="REDIS_SERVER"):
        servers.find_server()


def test_the_wheel_is_used_without_a_server_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a server on PATH, the server in the wheel is found."""
    monkeypatch.delenv("REDIS_SERVER", raising=False)
    monkeypatch.setenv("PATH", "")
    assert servers.find_server() == servers.wheel_server()


@pytest.mark.parametrize(
    ("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)], ids=["local", "ci"]
)
def test_without_a_server_a_test_is_skipped_and_fails_in_ci(
    monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
) -> None:
    """Without a server, tests are skipped; if CI is set, they fail."""
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(servers, "find_server", lambda: None)
    # Both are caught, because a skip that is not caught would skip this test.
    with pytest.raises((pytest.skip.Exception, pytest.fail.Exception), match="No Redis or Valkey") as raised:
        servers.require_server()
    assert raised.type is outcome
