"""The process whose output is searched: it runs the program under uvicorn, with every logger at DEBUG."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import quote

import uvicorn

from tests.canary.credentials import REDIS_PASSWORD
from tests.canary.leaks import leak_everywhere, leak_in_response
from tests.canary.program import Program
from tests.canary.rendering import rendered
from tests.canary.routes import application
from tests.canary.wrong_options import errors_of_wrong_options

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

# The attributes of every record, without those that may hold a secret.
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) - {"args", "stack_info"}


class _FullHandler(logging.Handler):
    """Writes all attributes of a record, like a JSON handler, and local variables of errors, like an error tracker."""

    def emit(self, record: logging.LogRecord) -> None:
        facts = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        sys.stderr.write(f"{record.name} {record.getMessage()} {facts!r}\n")
        if record.exc_info and record.exc_info[1] is not None:
            sys.stderr.write(rendered(record.exc_info[1]) + "\n")


async def _serve(*, redis: int, ports: dict[str, int], listener: int, leaks: bool) -> None:
    loop = asyncio.get_running_loop()
    # In debug mode asyncio logs every callback with its arguments.
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0
    url = f"redis://:{quote(REDIS_PASSWORD, safe='')}@127.0.0.1:{redis}/0"
    program = Program(redis=url, ports=ports, output=print)
    program.write(*errors_of_wrong_options())
    app: Any = application(program)
    stopped = asyncio.Event()

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
            return
        if scope["path"] == "/debug-off":
            loop.set_debug(False)
        if scope["path"] == "/stop":
            stopped.set()
        if leaks and scope["path"].startswith("/leak"):
            await leak_in_response(scope, receive, send)
            return
        await app(scope, receive, send)

    # At DEBUG, uvicorn logs the headers of each WebSocket.
    config = uvicorn.Config(serve, lifespan="on", log_config=None, log_level="info", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    logging.getLogger("uvicorn.access").addFilter(_without_query)
    running = asyncio.create_task(server.serve(sockets=[socket.socket(fileno=listener)]))
    if leaks:
        await leak_everywhere(program)
    await stopped.wait()
    program.write_state(*program.brokers)
    program.write_metrics()
    server.should_exit = True
    await running


def _without_query(record: logging.LogRecord) -> bool:
    # uvicorn logs the whole URL with an API key in its query; no application can prevent that.
    client, method, path, *rest = cast("tuple[str, ...]", record.args)
    record.args = (client, method, path.partition("?")[0], *rest)
    return True


def main() -> None:
    """Serve until a request for "/stop"."""
    logging.basicConfig(level=logging.DEBUG, handlers=[_FullHandler()])
    logging.captureWarnings(capture=True)
    asyncio.run(_serve(**json.loads(sys.argv[1])))


if __name__ == "__main__":
    main()
