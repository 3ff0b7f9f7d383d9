"""An Entra app and a bot, as most tests need them."""

from __future__ import annotations

from typing import Any

from tokenmw.providers import BotFramework, Entra

BASE = "http://localhost"
TENANT = "contoso.onmicrosoft.com"
SECRET = "s3cr3t~value"


def entra(**options: Any) -> Entra:
    """Make the app `app` of one tenant."""
    given: dict[str, Any] = {"tenant": TENANT, "client_id": "app", "client_secret": SECRET, "base_url": BASE} | options
    return Entra(**given)


def bot(**options: Any) -> BotFramework:
    """Make the bot `app`."""
    given: dict[str, Any] = {"app_id": "app", "app_secret": SECRET, "base_url": BASE} | options
    return BotFramework(**given)
