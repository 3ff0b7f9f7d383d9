"""The commands that change something, on four worker processes that share a real Redis."""

from __future__ import annotations

import io
import re
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from tests.commands.fleet import workers
from tests.commands.programs import API_KEY, CLIENT_SECRET, OPTIONS, Program
from tests.processes import freeze, thaw
from tests.servers import RedisServer
from tokenmw.commands.invalidate import unconfirmed
from tokenmw.redis.fleet import Beat
from tokenmw.redis.heartbeat import MAX_TOKENS, Heartbeat
from tokenmw.redis.token_store import Tombstoned
from tokenmw.testing import ProviderServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.commands.fleet import Worker

BY = r"An operator at \S+@\S+ requested"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """The Redis of the fleet."""
    with RedisServer() as started:
        yield started


@pytest.fixture(scope="module")
def provider_server() -> ProviderServer:
    """The token server of the fleet, with the client "crm"."""
    return ProviderServer(clients={"crm": CLIENT_SECRET}, token_life=3600)


@pytest.fixture(scope="module")
def shared_program(
    tmp_path_factory: pytest.TempPathFactory, server: RedisServer, provider_server: ProviderServer
) -> Iterator[Program]:
    """The program of the fleet."""
    with provider_server.running() as url:
        program = Program(tmp_path_factory.mktemp("fleet"), f"{url}/oauth2/token")
        program.write(server.url)
        yield program


@pytest.fixture(scope="module")
def all_workers(shared_program: Program, server: RedisServer) -> Iterator[list[Worker]]:
    """Four workers that have written their heartbeats; all tests share them, because they take long to start."""
    with workers(shared_program.directory, 4) as started:
        deadline = time.monotonic() + 30
        while len(server.command("KEYS", "*:beat-*")) < len(started):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield started


@pytest.fixture
def fleet(all_workers: list[Worker], provider_server: ProviderServer) -> list[Worker]:
    """The four workers; all of them have the token."""
    provider_server.clients = {"crm": CLIENT_SECRET}
    deadline = time.monotonic() + 20
    while len({worker.ask("token") for worker in all_workers}) > 1:  # one that was frozen reads its hints first
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return all_workers


def test_all_instances_confirm_an_invalidation(
    shared_program: Program, fleet: list[Worker], provider_server: ProviderServer
) -> None:
    """Each of them stops using the token, which the command has waited for, and the provider is asked once."""
    before, calls = {worker.ask("token") for worker in fleet}, provider_server.calls["oauth2"]
    done = shared_program.run("invalidate", "crm")
    assert done.returncode == 0, done.stdout
    found = re.search(r"^4 of 4 instances confirmed in (\S+) s$", done.stdout, re.MULTILINE)
    assert found is not None, done.stdout
    assert float(found[1]) < 5
    after = {worker.ask("token") for worker in fleet}
    assert len(after) == 1
    assert not before & after
    assert provider_server.calls["oauth2"] == calls + 1


@pytest.mark.campaign
def test_an_instance_that_hangs_is_stale_and_not_confirmed(shared_program: Program, fleet: list[Worker]) -> None:
    """It is marked, and named with the reason; both commands end with exit code 2."""
    freeze(fleet[0].process.pid)
    try:
        report = shared_program.json("inspect", code=None)
        deadline = time.monotonic() + 14
        while not any(one["stale"] for one in report["instances"]):
            assert time.monotonic() < deadline
            time.sleep(0.3)
            report = shared_program.json("inspect", code=None)
        invalidated = shared_program.json("invalidate", "crm", "--wait", "2", code=2)
    finally:
        thaw(fleet[0].process.pid)
    (stale,) = (one for one in report["instances"] if one["stale"])
    assert (report["exit_code"], len(report["instances"]), stale["pid"]) == (2, 4, fleet[0].process.pid)
    (missing,) = (one for one in invalidated["instances"] if not one["confirmed"])
    assert (invalidated["confirmed"], missing["name"].split(":")[1]) == (3, str(fleet[0].process.pid))
    assert "it hangs or has stopped" in missing["reason"]


def test_retry_ends_the_backoff_of_each_instance(
    shared_program: Program, fleet: list[Worker], provider_server: ProviderServer
) -> None:
    """The instance that was refused, and those that read its note, ask again; each logs who wanted it."""
    provider_server.clients = {"crm": "another"}
    shared_program.json("invalidate", "crm")
    assert {worker.ask("token") for worker in fleet} == {"CredentialRejected"}
    failed = shared_program.run("retry", "crm")
    assert failed.returncode == 1, failed.stdout
    assert re.search(r"the provider failed again after \S+ s: rejected: .*invalid_client", failed.stdout)
    provider_server.clients = {"crm": CLIENT_SECRET}
    assert {worker.ask("token") for worker in fleet} == {"CredentialRejected"}
    calls = provider_server.calls["oauth2"]
    report = shared_program.json("retry", "crm")
    assert (report["outcome"], report["instances"]) == ("renewed", 4)
    tokens = {worker.ask("token") for worker in fleet}
    assert len(tokens) == 1
    assert "CredentialRejected" not in tokens
    assert provider_server.calls["oauth2"] == calls + 1
    logged = [line for worker in fleet for line in worker.log]
    assert logged
    assert all(re.fullmatch(f"tokenmw: {BY} retry of crm", line) for line in logged)


def test_retry_without_a_backoff_says_that_nobody_has_asked(shared_program: Program, fleet: list[Worker]) -> None:
    """The token in use stays, and the exit code is 2."""
    before = {worker.ask("token") for worker in fleet}
    code, output, _ = shared_program.call("retry", "crm", "--wait", "0.5")
    assert code == 2
    assert "no instance has asked the provider within 0.50 s" in output
    assert {worker.ask("token") for worker in fleet} == before


@pytest.mark.parametrize("given", ["-", "--env", "argument"])
def test_a_session_is_reset_on_all_instances(
    shared_program: Program, fleet: list[Worker], monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    """The key comes from stdin or the environment; as an argument it works as well, with a warning. No id is shown."""
    (before,) = {worker.ask(f"session {API_KEY}") for worker in fleet}
    if given == "-":
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{API_KEY}\n"))
        code, output, errors = shared_program.call("reset-session", "-")
    elif given == "--env":
        monkeypatch.setenv("THE_KEY", API_KEY)
        code, output, errors = shared_program.call("reset-session", "--env", "THE_KEY")
    else:
        code, output, errors = shared_program.call("reset-session", API_KEY)
    assert code == 0, errors
    assert ("can see" in errors) == (given == "argument")
    assert "another session id" in output
    deadline = time.monotonic() + 10
    while before in (after := {worker.ask(f"session {API_KEY}") for worker in fleet}) or len(after) > 1:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_api_key_that_is_none_is_refused(
    program: Program, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So are a variable that is not set, and a key that is given twice."""
    program.write(redis_server.url)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert program.call("reset-session")[::2] == (
        1,
        "tokenmw reset-session: The API key is empty, or is not text.\n",
    )
    assert "no environment variable NO_SUCH" in program.call("reset-session", "--env", "NO_SUCH")[2]
    with pytest.raises(SystemExit) as ended:
        program.call("reset-session", "key", "--env", "NO_SUCH")
    assert ended.value.code == 64


def test_the_end_of_the_input_at_the_prompt_is_one_line(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-D in place of the API key is not a traceback."""

    def end(_prompt: str) -> str:
        raise EOFError

    program.write(None)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("getpass.getpass", end)
    assert program.call("reset-session")[::2] == (1, "\ntokenmw reset-session: No API key was given.\n")


@pytest.mark.parametrize("action", ["retry", "invalidate", "reset-session"])
def test_an_action_is_in_the_log_of_the_command(
    program: Program,
    redis_server: RedisServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    action: str,
) -> None:
    """It has the words of the status page's, with the user and the host, and neither key nor token."""
    program.write(redis_server.url)
    monkeypatch.setattr("sys.stdin", io.StringIO(API_KEY))
    arguments = () if action == "reset-session" else ("crm", "--wait", "0.1")
    assert program.call(action, *arguments)[0] in {0, 2}
    (line,) = (record.getMessage() for record in caplog.records if record.name == "tokenmw")
    changed = "an API key" if action == "reset-session" else "crm"
    assert re.fullmatch(f"tokenmw: {BY} {action} of {changed}", line)


def test_an_invalidation_is_an_event(program: Program, redis_server: RedisServer) -> None:
    """The observers of the program get it with the cause `operator`."""
    program.write(redis_server.url, options=f"{OPTIONS}, observers=[print]")
    output = program.call("invalidate", "crm")[1]
    assert "TokenInvalidated(provider='crm', cause='operator', credential='')" in output
    assert "no instance has a heartbeat" in output


@pytest.mark.parametrize("action", ["retry", "invalidate"])
def test_nothing_is_done_where_nothing_can_be_done(program: Program, action: str) -> None:
    """Without Redis, with one that takes no writes, and with an unknown provider, the exit code is 1 with one line."""
    program.write(None)
    assert f"tokenmw {action}: The broker has no redis=…" in program.call(action, "crm")[2]
    with RedisServer() as server:
        program.write(server.url)
        assert "There is no provider 'crn'" in program.call(action, "crn")[2]
        server.command("CONFIG", "SET", "maxmemory", "1")
        code, output, errors = program.call(action, "crm")
    assert (code, output) == (1, "")
    assert re.search(rf"tokenmw {action}: Redis: 127.0.0.1:\d+ cannot be used \(full\)", errors)


def beat(*, written: float, tokens: dict[str, int], age: float = 1.0) -> Beat:
    """Return a heartbeat."""
    said = Heartbeat(
        host="h", pid=1, version="1", started_at=0.0, shared="up", shared_seconds=1.0, tokens=tokens, counts={}
    )
    return Beat("0" * 13, said, age, written)


def test_what_a_heartbeat_confirms() -> None:
    """Only one written after the invalidation, or one with a newer token, confirms it."""
    tombstone = Tombstoned(100, at=1000.0)
    many = {f"d{number}": 1 for number in range(MAX_TOKENS)}
    for confirmed in (
        beat(written=1000.1, tokens={}),
        beat(written=1000.1, tokens={"d": 0}),
        beat(written=999.0, tokens={"d": 101}),
    ):
        assert unconfirmed(confirmed, "d", tombstone) is None
    for other, why in (
        (beat(written=999.9, tokens={"d": 0}), "its last heartbeat is 1.0 s old: wait"),
        (beat(written=990.0, tokens={"d": 100}, age=9.0), "it hangs or has stopped"),
        (beat(written=1000.1, tokens={"d": 100}), "it still has the token"),
        (beat(written=1000.1, tokens=many), "shows 32 other providers"),
        (Beat("0" * 13, None, 1.0, 1000.1), "sealed with a secret that this configuration does not have"),
        (None, "its heartbeat has disappeared"),
    ):
        assert why in (unconfirmed(other, "d", tombstone) or "")
