"""One instance of a test's program: it uses the token of "crm" whenever a line arrives, and writes what it got.

    python -m tests.commands.worker program:broker

Each line on stdin is a command. `token` writes the last characters of the token, or the class of the error; `session`
a digest of the session id of the API key that follows. Log lines of actions are written with `log: `.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import sys

from tokenmw import TokenmwError
from tokenmw.commands.target import find_broker


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class _Actions(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if record.__dict__.get("tokenmw.kind") == "action":
            _write(f"log: {record.getMessage()}")


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    async with broker:
        _write("open")
        while words := (await loop.run_in_executor(None, sys.stdin.readline)).split():
            if words[0] == "session":
                session_id = await broker.session_id(words[1])
                _write(hashlib.sha256(session_id.encode()).hexdigest()[:12])
                continue
            try:
                answer = (await broker.token("crm")).value[-12:]
            except TokenmwError as error:
                answer = type(error).__name__
            _write(answer)


if __name__ == "__main__":
    logger = logging.getLogger("tokenmw")
    logger.setLevel(logging.INFO)
    logger.addHandler(_Actions())
    broker = find_broker(sys.argv[1])
    asyncio.run(_serve())
