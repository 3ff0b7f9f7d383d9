"""`tokenmw check`: opens a program's broker once, and reports what works and what does not."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Final

from tokenmw.commands.check_redis import check_redis
from tokenmw.commands.report import Finding, as_json, as_text, exit_code
from tokenmw.commands.running import progress, quiet_log
from tokenmw.commands.target import TargetError, find_broker
from tokenmw.connections.store import StoreUnavailable
from tokenmw.errors import TokenmwError
from tokenmw.tokens.entry import TokenEntry

if TYPE_CHECKING:
    from tokenmw.broker import TokenBroker
    from tokenmw.runtime.settings import Settings

__all__ = ["run_check"]

_PAGE: Final = 100  # connections that are read of the store


def run_check(target: str, *, processes: int, json: bool) -> int:
    """Check the broker `module:name`, print the report, and return the exit code."""
    try:
        broker = find_broker(target)
    except TargetError as error:
        print(f"tokenmw check: {error}", file=sys.stderr)
        return 1
    with quiet_log() as logged:
        findings = asyncio.run(_checked(broker, processes=processes))
    # What a store has found out about its database.
    findings += [Finding("WARN", "connections", text) for kind, text in logged if kind == "store-not-durable"]
    print(as_json(findings) if json else as_text(findings))
    return exit_code(findings)


async def _checked(broker: TokenBroker, *, processes: int) -> list[Finding]:
    async with progress("Checking"):
        return await check(broker, processes=processes)


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
    sessions = f"session_ttl {settings.session_ttl:g} s, session_policy {settings.session_policy}"
    text = f"namespace {settings.names.namespace}, {sessions}"
    if settings.redis is None:
        return [Finding("ok", subject, text)]
    found = [Finding("ok", subject, f"{text}, hints {'on' if settings.hints else 'off'}")]
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
        return Finding("FAIL", subject, str(error).removeprefix(f"{name}: "))
    except Exception as error:  # noqa: BLE001  the program's own provider may raise anything, with a secret in its text
        return Finding("FAIL", subject, f"it raised {type(error).__name__}")
    status = broker.status()
    left = status.providers[name].expires_in or 0.0
    source = "the provider or from Redis" if status.shared == "up" else "the provider"
    return Finding("ok", subject, f"has a token, from {source}, that expires in {left:.0f} s")


async def _store(settings: Settings) -> list[Finding]:
    connections, subject = settings.connections, "connections"
    if connections is None:
        return []
    kind, began = type(connections.store).__name__, time.monotonic()
    try:
        async with asyncio.timeout(settings.limits.store_seconds):
            page = await connections.store.scan(after=None, limit=_PAGE)
    except StoreUnavailable as error:
        return [Finding("FAIL", subject, f"{kind}: {error}")]
    except Exception as error:  # noqa: BLE001  a store is the program's own, and its text may have an address with a password
        return [
            Finding("FAIL", subject, f"{kind} does not answer ({type(error).__name__}). Check its address and login.")
        ]
    took = (time.monotonic() - began) * 1000
    count = f"{_PAGE} connections or more" if len(page) == _PAGE else f"{len(page)} connections"
    found = [Finding("ok", subject, f"{kind} answers in {took:.1f} ms; it has {count}")]
    known = {bytes(4), *settings.sealer.key_ids}
    unknown = sum(stored.value[9:13] not in known for _, stored in page)
    if unknown:
        text = f"{unknown} of the {len(page)} that were read are sealed with a secret that secret_key=[…] does not have"
        found.append(Finding("FAIL", subject, f"{text}. Put it into the list."))
    return found
