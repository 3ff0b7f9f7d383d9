"""The process whose output is searched: the program under uvicorn, with every logger at DEBUG."""

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
from tests.canary.leaks import plant, planted
from tests.canary.program import Program
from tests.canary.rendering import rendered
from tests.canary.routes import application
from tests.canary.wrong_options import slips

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

__all__ = ["DONE"]

DONE: Final = "The process has come to its end."


# Facts about the line itself, and what is written in another form.
_KNOWN: Final = frozenset(vars(logging.makeLogRecord({}))) - {"args", "stack_info"}


class _Everything(logging.Handler):
    """Writes all that is in a record, as a handler may that writes JSON; and errors as reporters do."""

    def emit(self, record: logging.LogRecord) -> None:
        facts = {name: value for name, value in vars(record).items() if name not in _KNOWN}
        sys.stderr.write(f"{record.name} {record.getMessage()} {facts!r}\n")
        if record.exc_info and record.exc_info[1] is not None:
            sys.stderr.write(rendered(record.exc_info[1]) + "\n")


async def _serve(*, redis: int, ports: dict[str, int], listener: int, plants: bool) -> None:
    loop = asyncio.get_running_loop()
    # Then asyncio logs whatever it runs, with the arguments.
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0
    url = f"redis://:{quote(REDIS_PASSWORD, safe='')}@127.0.0.1:{redis}/0"
    program = Program(redis=url, ports=ports, write=print)
    program.say(*slips())
    app: Any = application(program)
    ended = asyncio.Event()

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
            return
        if scope["path"] == "/calm":
            loop.set_debug(False)
        if scope["path"] == "/end":
            ended.set()
        if plants and scope["path"].startswith("/planted"):
            await planted(scope, receive, send)
            return
        await app(scope, receive, send)

    # At DEBUG, it writes down each WebSocket's headers.
    config = uvicorn.Config(served, lifespan="on", log_config=None, log_level="info", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    logging.getLogger("uvicorn.access").addFilter(_without_query)
    running = asyncio.create_task(server.serve(sockets=[socket.socket(fileno=listener)]))
    if plants:
        await plant(program)
    await ended.wait()
    program.report(*program.brokers)
    program.count()
    server.should_exit = True
    await running


def _without_query(record: logging.LogRecord) -> bool:
    # The server writes the whole URL, and so an API key in a query, whatever the application does.
    client, method, path, *rest = cast("tuple[str, ...]", record.args)
    record.args = (client, method, path.partition("?")[0], *rest)
    return True


def main() -> None:
    """Serve until told to end."""
    logging.basicConfig(level=logging.DEBUG, handlers=[_Everything()])
    logging.captureWarnings(capture=True)
    asyncio.run(_serve(**json.loads(sys.argv[1])))
    sys.stdout.write(f"{DONE}\n")


if __name__ == "__main__":
    main()
