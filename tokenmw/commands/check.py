"""`tokenmw check`: opens a program's broker once, and reports what works and what does not."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING

from tokenmw.commands.check_redis import check_redis
from tokenmw.commands.report import Finding, as_json, as_text, exit_code
from tokenmw.commands.target import TargetError, find_broker
from tokenmw.errors import TokenmwError
from tokenmw.tokens.entry import TokenEntry

if TYPE_CHECKING:
    from tokenmw.broker import TokenBroker
    from tokenmw.runtime.settings import Settings

__all__ = ["run_check"]


def run_check(target: str, *, processes: int, json: bool) -> int:
    """Check the broker `module:name`, print the report, and return the exit code."""
    try:
        broker = find_broker(target)
    except TargetError as error:
        print(f"tokenmw check: {error}", file=sys.stderr)
        return 1
    # The report has what the log would repeat.
    logging.getLogger("tokenmw").setLevel(logging.CRITICAL + 1)
    findings = asyncio.run(check(broker, processes=processes))
    print(as_json(findings) if json else as_text(findings))
    return exit_code(findings)


async def check(broker: TokenBroker, *, processes: int) -> list[Finding]:
    """Open a broker, and return what was found, without secrets."""
    settings = broker._settings
    findings = _configuration(settings)
    async with broker:
        runtime = broker._open()
        findings += await check_redis(runtime, settings, processes=processes)
        findings += await asyncio.gather(*(_provider(broker, name) for name in broker._credentials.names))
        findings += await _store(settings)
    return findings


def _configuration(settings: Settings) -> list[Finding]:
    subject = "configuration"
    hints = "on" if settings.hints else "off"
    found = [
        Finding(
            "ok",
            subject,
            f"namespace {settings.names.namespace}, session_ttl {settings.session_ttl:g} s, session_policy "
            f"{settings.session_policy}, hints {hints}",
        )
    ]
    if settings.redis is None:
        return found
    if settings.sealer.sealing:
        found.append(Finding("ok", subject, "values in Redis are sealed"))
    else:
        found.append(
            Finding("WARN", subject, "values in Redis are not sealed. Give secret_key=…, and leave seal=False out.")
        )
    if settings.names_follow_secrets:
        fix = "names in Redis follow the last secret_key. Give name_key= the secret that was used first."
        found.append(Finding("WARN", subject, fix))
    elif settings.names.keyed:
        found.append(Finding("ok", subject, "names in Redis are hidden"))
    else:
        found.append(Finding("WARN", subject, "names in Redis are not hidden. Give secret_key=… or name_key=…."))
    return found


async def _provider(broker: TokenBroker, name: str) -> Finding:
    subject = f"provider {name}"
    if not isinstance(broker._credentials.find(name), TokenEntry):
        return Finding("ok", subject, "not checked: its credentials depend on the request")
    try:
        await broker.token(name)
    except TokenmwError as error:
        return Finding("FAIL", subject, str(error))
    except Exception as error:  # noqa: BLE001  the program's own provider may raise anything, with a secret in its text
        return Finding("FAIL", subject, f"it raised {type(error).__name__}")
    left = broker.status().providers[name].expires_in or 0.0
    return Finding("ok", subject, f"has a token, from the provider or from Redis, that expires in {left:.0f} s")


async def _store(settings: Settings) -> list[Finding]:
    connections, subject = settings.connections, "connections"
    if connections is None:
        return []
    kind = type(connections.store).__name__
    try:
        async with asyncio.timeout(settings.limits.store_seconds):
            await connections.store.scan(after=None, limit=1)
    except Exception as error:  # noqa: BLE001  a store is the program's own, and its text may have an address with a password
        return [
            Finding("FAIL", subject, f"{kind} does not answer ({type(error).__name__}). Check its address and login.")
        ]
    return [Finding("ok", subject, f"{kind} answers")]
