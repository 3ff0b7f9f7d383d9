"""A program with a broker, and the commands that run on it; no output may have one of its secrets."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any, Final

from tests.demo.commands import run
from tokenmw.cli import main
from tokenmw.commands.target import find_broker
from tokenmw.errors import CredentialRejected

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

SECRET: Final = "canary-of-the-secret-key"
OLD_SECRET: Final = "canary-of-the-old-secret-key"
CLIENT_SECRET: Final = "canary-of-the-client-secret"
PASSWORD: Final = "canary-of-the-password"
API_KEY: Final = "canary-of-an-api-key"
CANARY: Final = "canary-of-"
PROGRAM: Final = """
from tokenmw import TokenBroker
from tokenmw.connections import Connections, OAuthApp, RedisStore
from tokenmw.providers import ClientCredentials, StaticToken

print("printed by the program")
crm = ClientCredentials(token_url={url!r}, client_id="crm", client_secret={client_secret!r})
broker = TokenBroker(
    {{"crm": crm, "static": StaticToken("canary-of-a-token"), "tenant": lambda connection: crm}},
    redis={redis!r},
    {options}
)
brokers = {{"first": broker}}
"""
OPTIONS: Final = f"secret_key={SECRET!r}"


class Program:
    """The program `program.py` of a test's directory.

    Attributes:
        directory: Where it is.
    """

    def __init__(self, directory: Path, url: str) -> None:
        self.directory = directory
        self._url = url

    def write(self, redis: str | None, *, secret: str = CLIENT_SECRET, options: str = OPTIONS) -> None:
        """Write the program with these options of its broker."""
        text = PROGRAM.format(url=self._url, client_secret=secret, redis=redis, options=options)
        (self.directory / "program.py").write_text(text)

    def run(self, command: str, *arguments: str, name: str = "program:broker") -> subprocess.CompletedProcess[str]:
        """Run a command on it, and search its output for secrets, tokens and API keys."""
        done = run(command, name, *arguments, directory=self.directory)
        assert CANARY not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        assert "\x1b" not in done.stdout + done.stderr
        return done

    def call(self, command: str, *arguments: str, name: str = "program:broker") -> tuple[int, str, str]:
        """Do as `run` in this process, which takes less time. Return the exit code, stdout and stderr."""
        sys.modules.pop("program", None)
        output, errors = io.StringIO(), io.StringIO()
        with contextlib.chdir(self.directory), redirect_stdout(output), redirect_stderr(errors):
            code = main([command, name, *arguments])
        assert CANARY not in output.getvalue() + errors.getvalue()
        return code, output.getvalue(), errors.getvalue()

    def use(self, *, invalidates: bool = False) -> None:
        """Get the program's token in this process, as an instance does."""

        async def get() -> None:
            async with broker:
                with contextlib.suppress(CredentialRejected):
                    await broker.token("crm")
                    if invalidates:
                        await broker.invalidate_provider("crm")

        sys.modules.pop("program", None)
        with contextlib.chdir(self.directory):
            broker = find_broker("program:broker")
        asyncio.run(get())

    def json(self, command: str, *arguments: str, code: int | None = 0) -> dict[str, Any]:
        """Run a command with `--json`, and return its object. Its exit code must be `code`, unless that is None."""
        found, output, errors = self.call(command, *arguments, "--json")
        assert found == (found if code is None else code), output + errors
        printed: dict[str, Any] = json.loads(output)
        assert printed["exit_code"] == found
        return printed
