"""A client that does not authenticate: it sends its id, or nothing of its own (RFC 6749 §2.1, §3.2.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from tokenmw.options import credential_text
from tokenmw.providers.proof import Proof
from tokenmw.redaction import FrozenValue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tokenmw.providers.client_auth import AuthMethod

__all__ = ["PublicClient"]

R = TypeVar("R")


class PublicClient(FrozenValue):
    """A client without a secret, in the place of a `ClientAuth`.

    Args:
        client_id: The client's id, which is sent in the form; None: it has none.
        provider: The provider's class name, for error texts.
        name: What error texts call a client without an id.

    Raises:
        ConfigurationError: The id is not text.
    """

    __slots__ = ("_id", "_name")

    _id: str | None
    _name: str

    certificate = None
    shareable = True
    chooses_method = False

    def __init__(self, client_id: str | None, *, provider: str, name: str = "the client") -> None:
        if client_id is not None:
            credential_text(client_id, option=f"{provider}(client_id=…)")
        object.__setattr__(self, "_id", client_id)
        object.__setattr__(self, "_name", name)

    def identity(self) -> tuple[object, ...]:
        """Return the client's id, or None."""
        return (self._id,)

    def more_identity(self) -> tuple[object, ...]:
        """Return the part of the identity that only clients with an option for their assertions have: none."""
        return ()

    async def grant(
        self, request: Callable[[Proof], Awaitable[R]], *, token_url: str = "", method: AuthMethod | None = None
    ) -> R:
        """Request a token."""
        del token_url, method
        form = {} if self._id is None else {"client_id": self._id}
        return await request(Proof("", form=form, headers={}))

    def client(self) -> str:
        """Return the client for an error text."""
        return self._name

    def fix(self, *, method_option: bool) -> str:
        """Return what to check if the server does not accept the client."""
        del method_option
        return "check client_id, or give client_secret"

    def __repr__(self) -> str:
        return "<PublicClient>"
