"""The secrets of one client: usually one, and two while it is changed, the new one and the old one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from tokenmw.errors import ConfigurationError, CredentialRejected
from tokenmw.options import secret_text
from tokenmw.redaction import FrozenValue, HiddenStr, without_locals

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from tokenmw.values import Grant

__all__ = ["ClientSecrets"]

_MAX_SECRETS: Final = 4  # each one that is refused costs a request


class ClientSecrets(FrozenValue):
    """A client's secrets, in order of preference. It remembers, for this process, which one to send first.

    Args:
        given: One secret, or a list.
        option: The option's name, for error texts.

    Raises:
        ConfigurationError: A secret is not text, or the list is empty, too long, or has one twice.
    """

    __slots__ = ("_accepted", "_secrets")

    _accepted: list[int]
    _secrets: tuple[HiddenStr, ...]

    @without_locals
    def __init__(self, given: object, *, option: str) -> None:
        listed = list(cast("Iterable[object]", given)) if isinstance(given, (list, tuple)) else [given]
        if not 0 < len(listed) <= _MAX_SECRETS:
            raise ConfigurationError(
                f"{option} has {len(listed)} secrets: give one, or while it is changed the new one and the old one."
            )
        secrets = tuple(HiddenStr(secret_text(one, option=option)) for one in listed)
        if len(set(secrets)) < len(secrets):
            raise ConfigurationError(f"{option} has one secret twice: give the new one and the old one.")
        object.__setattr__(self, "_secrets", secrets)
        object.__setattr__(self, "_accepted", [0])

    @property
    def all(self) -> tuple[str, ...]:
        """All secrets, in order of preference."""
        return self._secrets

    @property
    def accepted(self) -> str:
        """The secret that was accepted last, or the one after a refused one; before that, the first one."""
        return self._secrets[self._accepted[0]]

    def identity(self) -> str | tuple[str, ...]:
        """Return the part of the credential: one secret, or all of them, whatever their order.

        So `[new, old]` is another credential than `old` and than `new`. An instance that has only the secret that the
        provider refuses cannot stop the others with a failure note, and each step of a rotation costs one request.
        """
        return self._secrets[0] if len(self._secrets) == 1 else tuple(sorted(self._secrets))

    @without_locals
    async def grant(self, request: Callable[[str], Awaitable[Grant]], *, codes: frozenset[str]) -> Grant:
        """Request a token with the secret that was accepted last; if it is refused, once with each of the others.

        Args:
            request: Sends one request with a secret.
            codes: The codes of :exc:`CredentialRejected` that mean that the provider refuses the secret.

        Raises:
            CredentialRejected: Every secret is refused, or it is not about the secret.
            TokenUnavailable: As `request` raises it.
        """
        first = self._accepted[0]
        order = [first, *(number for number in range(len(self._secrets)) if number != first)]
        refusals: list[CredentialRejected] = []
        for number, after in zip(order, [*order[1:], first], strict=True):
            try:
                grant = await request(self._secrets[number])
            except CredentialRejected as error:
                if not error.said or error.code not in codes or len(order) == 1:
                    raise
                refusals.append(error)
                # Before its request: if the time of this fetch is over by then, the next fetch begins with it.
                self._accepted[0] = after
                continue
            self._accepted[0] = number
            return grant
        refused = refusals[-1]
        text = f"{refused}; its other secrets are refused too"
        raise CredentialRejected(text, code=refused.code, retry_after=refused.retry_after, said=refused.said)

    def __repr__(self) -> str:
        return f"<ClientSecrets {len(self._secrets)}>"
