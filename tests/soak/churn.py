"""Callers and tenants that change: keys become idle and are used again, secrets are rotated, tokens expire."""

from __future__ import annotations

from starlette.requests import HTTPConnection

from tests.soak.load import SECRET, Load, serve
from tokenmw import Limits, TokenBroker
from tokenmw.providers import ClientCredentials

__all__ = ["Churn"]

_STEP = 0.01  # seconds of virtual time for each request: two million take five and a half hours
_KEYS = 150_000  # more than the cache holds
_IN_USE = 20_000  # of them at any time
_REUSED_AFTER = 6_000.0  # seconds after which an idle key is used again; its session has expired by then
_TENANTS = 500
_ROTATE = 2_000.0  # seconds between two secrets of a tenant
_LIFETIME = 600.0  # seconds of a token
_TENANT_SHARE, _NEW_SHARE = 0.15, 0.05  # fractions of the requests


class Churn(Load):
    """A service over several hours."""

    def __init__(self, redis: str, *, limits: Limits) -> None:
        super().__init__(step=_STEP, lifetime=_LIFETIME)
        self.brokers = (
            TokenBroker({"tenant": self._tenant_of}, redis=redis, secret_key=SECRET, clock=self.clock, limits=limits),
        )

    async def request(self, number: int) -> int:
        """Send a request with one of the keys in use, or with a new one."""
        chance = self.random.random()
        if chance < _NEW_SHARE:
            return await serve(self.apps[0], [(b"x-api-key", b"new-%d" % number)])
        begin = int(self.clock.monotonic() % _REUSED_AFTER / _REUSED_AFTER * _KEYS)
        headers = [(b"x-api-key", b"key-%d" % ((begin + self.random.randrange(_IN_USE)) % _KEYS))]
        if chance < _NEW_SHARE + _TENANT_SHARE:
            headers.append((b"x-tenant", b"%d" % self.random.randrange(_TENANTS)))
        return await serve(self.apps[0], headers)

    def _tenant_of(self, connection: HTTPConnection) -> ClientCredentials:
        tenant = connection.headers["x-tenant"]
        # Not all tenants rotate at the same time.
        generation = int(self.clock.monotonic() / _ROTATE + int(tenant) / _TENANTS)
        return ClientCredentials(
            token_url=self.endpoint.url("granted"), client_id=f"tenant-{tenant}", client_secret=f"secret-{generation}"
        )
