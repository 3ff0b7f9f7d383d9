"""Callers and tenants that come and go: keys go idle and come back, secrets are rotated, tokens expire."""

from __future__ import annotations

from starlette.requests import HTTPConnection

from tests.soak.load import SECRET, Load, serve
from tokenmw import Limits, TokenBroker
from tokenmw.providers import ClientCredentials

__all__ = ["Churn"]

_STEP = 0.01  # seconds of virtual time for each request: two million take five and a half hours
_KEYS = 150_000  # more than are held
_IN_USE = 20_000  # of them at one moment
_COME_BACK = 6_000.0  # seconds after which a key that has gone comes back; its session has ended then
_TENANTS = 500
_ROTATE = 2_000.0  # seconds between two secrets of a tenant
_LIFE = 600.0  # seconds of a token
_OF_TENANTS, _NEW = 0.15, 0.05  # parts of the requests


class Churn(Load):
    """A service in the course of a day."""

    def __init__(self, redis: str, *, limits: Limits) -> None:
        super().__init__(step=_STEP, life=_LIFE)
        self.brokers = (
            TokenBroker({"tenant": self._tenant_of}, redis=redis, secret_key=SECRET, clock=self.clock, limits=limits),
        )

    async def request(self, number: int) -> int:
        """Send a request with one of the keys that are in use now, or with a new one."""
        chance = self.random.random()
        if chance < _NEW:
            return await serve(self.apps[0], [(b"x-api-key", b"new-%d" % number)])
        begin = int(self.clock.monotonic() % _COME_BACK / _COME_BACK * _KEYS)
        headers = [(b"x-api-key", b"key-%d" % ((begin + self.random.randrange(_IN_USE)) % _KEYS))]
        if chance < _NEW + _OF_TENANTS:
            headers.append((b"x-tenant", b"%d" % self.random.randrange(_TENANTS)))
        return await serve(self.apps[0], headers)

    def _tenant_of(self, connection: HTTPConnection) -> ClientCredentials:
        tenant = connection.headers["x-tenant"]
        # Not all at the same time.
        generation = int(self.clock.monotonic() / _ROTATE + int(tenant) / _TENANTS)
        return ClientCredentials(
            token_url=self.endpoint.url("granted"), client_id=f"tenant-{tenant}", client_secret=f"secret-{generation}"
        )
