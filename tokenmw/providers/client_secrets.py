"""The secrets of one client: one, or two while it is changed, the new one and the old one, or where to read them."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, cast

from tokenmw.errors import ConfigurationError, CredentialRejected
from tokenmw.options import secret_text
from tokenmw.providers.secret_sources import SecretSource
from tokenmw.redaction import FrozenValue, HiddenStr, without_locals

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

__all__ = ["ClientSecrets"]

R = TypeVar("R")

_MAX_SECRETS: Final = 4  # each one that is refused costs a request
_NUMBERS: Final = count(1)  # of all requests, in the order in which they began


class ClientSecrets(FrozenValue):
    """A client's secrets, in order of preference. It remembers, for this process, which one to send first.

    Args:
        given: One secret, a list, or a `SecretSource`.
        option: The option's name, for error texts.

    Raises:
        ConfigurationError: A secret is not text, or the list is empty, too long, or has one twice.
    """

    __slots__ = ("_first", "_last_read", "_secrets", "_shown_by", "source")

    source: SecretSource | None
    _first: list[str]  # the secret to send first; empty before a source was read
    _shown_by: list[int]  # the number of the request that has shown it
    _last_read: list[str]
    _secrets: tuple[HiddenStr, ...]

    @without_locals
    def __init__(self, given: object, *, option: str) -> None:
        if isinstance(given, SecretSource):
            object.__setattr__(self, "source", given)
            object.__setattr__(self, "_secrets", ())
            object.__setattr__(self, "_first", [])
            object.__setattr__(self, "_shown_by", [0])
            object.__setattr__(self, "_last_read", [])
            return
        if callable(given):
            raise ConfigurationError(f"{option} was given a function: pass SecretSource(function, credential_id=…).")
        if isinstance(given, Path):
            raise ConfigurationError(f"{option} was given a path: pass FileSecret(path).")
        listed = list(cast("Iterable[object]", given)) if isinstance(given, (list, tuple)) else [given]
        if not 0 < len(listed) <= _MAX_SECRETS:
            raise ConfigurationError(
                f"{option} has {len(listed)} secrets: give one, or while it is changed the new one and the old one."
            )
        secrets = tuple(HiddenStr(secret_text(one, option=option)) for one in listed)
        if len(set(secrets)) < len(secrets):
            raise ConfigurationError(f"{option} has one secret twice: give the new one and the old one.")
        object.__setattr__(self, "source", None)
        object.__setattr__(self, "_secrets", secrets)
        object.__setattr__(self, "_first", [secrets[0]])
        object.__setattr__(self, "_shown_by", [0])
        object.__setattr__(self, "_last_read", [])

    @property
    def all(self) -> tuple[str, ...]:
        """All secrets that are known now, in order of preference; those of a source once it was read."""
        return self._secrets or (*self._last_read, *self._first)

    @property
    def given(self) -> str | SecretSource:
        """What another provider of the same app takes as its secret: the source, or the secret to send first."""
        return self._first[0] if self.source is None else self.source

    async def accepted(self) -> str:
        """Return the secret that was accepted last, or the one after a refused one; before that, the first one.

        Raises:
            TokenUnavailable: The source cannot be read.
        """
        if self.source is None:
            return self._first[0]
        secrets = await self._read(self.source)
        return self._first_of(secrets)

    def identity(self) -> str | tuple[str, ...]:
        """Return the part of the credential: one secret, or all of them, whatever their order; or a source's name.

        So `[new, old]` is another credential than `old` and than `new`. An instance that has only the secret that the
        provider refuses cannot stop the others with a failure note, and each step of a rotation costs one request.
        """
        if self.source is not None:
            return ("source", self.source.credential_id)
        return self._secrets[0] if len(self._secrets) == 1 else tuple(sorted(self._secrets))

    @without_locals
    async def grant(self, request: Callable[[str], Awaitable[R]], *, codes: frozenset[str]) -> R:
        """Request a token with the secret that was accepted last; if it is refused, once with each of the others.

        Args:
            request: Sends one request with a secret.
            codes: The codes of :exc:`CredentialRejected` that mean that the provider refuses the secret.

        Raises:
            CredentialRejected: Every secret is refused, or it is not about the secret.
            TokenUnavailable: As `request` raises it.
        """
        if self.source is None:
            return await self._grant_with(self._secrets, request, codes=codes)
        secrets = await self._read(self.source)
        try:
            return await self._grant_with(secrets, request, codes=codes)
        except CredentialRejected as error:
            if not _is_of_secret(error, codes=codes):
                raise
            refused = error
        # The secret may have been changed meanwhile. What was just refused is not sent again.
        newer = tuple(one for one in await self._read(self.source) if one not in secrets)
        if newer:
            return await self._grant_with(newer, request, codes=codes)
        # Other instances may read a newer secret already: this refusal does not stop them.
        text = f"{refused}; {self.source!r} was read again and has no other secret"
        raise CredentialRejected(text, code=refused.code, retry_after=refused.retry_after, said=False)

    async def _grant_with(
        self, secrets: Sequence[str], request: Callable[[str], Awaitable[R]], *, codes: frozenset[str]
    ) -> R:
        untried = list(secrets)
        refusals: list[CredentialRejected] = []
        while untried:
            # Read each time: another request, of another event loop, may have found out meanwhile.
            secret = self._first_of(untried)
            untried.remove(secret)
            began = next(_NUMBERS)
            try:
                grant = await request(secret)
            except CredentialRejected as error:
                if not _is_of_secret(error, codes=codes) or len(secrets) == 1:
                    raise
                refusals.append(error)
                # Before its request: if the time of this fetch is over by then, the next fetch begins with it.
                self._begin_with((untried or secrets)[0], began)
                continue
            return grant
        refused = refusals[-1]
        text = f"{refused}; its other secrets are refused too"
        raise CredentialRejected(text, code=refused.code, retry_after=refused.retry_after, said=refused.said)

    def _first_of(self, secrets: Sequence[str]) -> str:
        return next((one for one in self._first if one in secrets), secrets[0])

    def _begin_with(self, secret: str, began: int) -> None:
        if began > self._shown_by[0]:  # else a later request has shown which one is accepted now
            self._first[:], self._shown_by[:] = [secret], [began]

    async def _read(self, source: SecretSource) -> tuple[HiddenStr, ...]:
        secrets = await source.read()
        # Kept for `all`: texts of errors show nothing that repeats a secret.
        self._last_read[:] = secrets
        return secrets

    def __repr__(self) -> str:
        return f"<ClientSecrets {len(self._secrets) if self.source is None else self.source!r}>"


def _is_of_secret(error: CredentialRejected, *, codes: frozenset[str]) -> bool:
    return error.said and error.code in codes
