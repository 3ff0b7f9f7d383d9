"""The OAuth 2.0 client credentials grant, for any server that speaks it (RFC 6749 §4.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenmw.options import credential_text, positive_seconds
from tokenmw.providers.base import OutgoingAnswer, Provider
from tokenmw.providers.client_auth import AuthMethod, ClientAuth
from tokenmw.providers.oauth2_answer import bearer_rejected, grant_of
from tokenmw.providers.options import host_names
from tokenmw.providers.token_url import token_url as checked_token_url
from tokenmw.redaction import without_locals

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from tokenmw.providers.http import TokenHTTP
    from tokenmw.values import Grant

__all__ = ["ClientCredentials"]


class ClientCredentials(Provider):
    """A client of an OAuth 2.0 server, with a secret or with signed assertions.

    >>> ClientCredentials(
    ...     token_url="https://idp.example/token", client_id="crm", client_secret="…", scope="crm.read"
    ... )
    <ClientCredentials>

    With a private key instead of a secret (RFC 7523 §2.2), here by PyJWT from the extra `jwt`::

        def assertion():
            claims = {"iss": "crm", "sub": "crm", "aud": "https://idp.example/token", "jti": str(uuid4())}
            return jwt.encode(claims | {"exp": int(time()) + 60}, private_key, algorithm="RS256")

        ClientCredentials(
            token_url="https://idp.example/token",
            client_id="crm",
            auth_method="private_key_jwt",
            client_assertion=assertion,
            credential_id="crm-key-2",
        )

    Args:
        token_url: The token endpoint; https, unless it is on this machine.
        client_id: The client's name at the server.
        client_secret: Its secret, for the two `client_secret_…` methods.
        scope: Scopes, separated by spaces. Their order makes no other credential; they are sent as given.
        audience: The API that the token is for, where the server asks for `audience`.
        resource: The API that the token is for, where the server follows RFC 8707.
        auth_method: How the client proves who it is (RFC 6749 §2.3.1, RFC 7523 §2.2): `client_secret_basic`
            in a header, `client_secret_post` in the form, or `private_key_jwt` with `client_assertion`.
        client_assertion: A signed assertion, or a function, sync or async, that returns a new one. It is
            called for each attempt, because servers refuse an assertion that they have seen.
        credential_id: A name for the key behind `client_assertion`, to be changed with the key. Without it,
            the tokens that a function got are shared neither with other objects nor with Redis.
        allow_http: Allows to do without TLS outside this machine: for `token_url`, and for an auth object's requests.
        refresh_before: Seconds before expiry at which a new token is fetched; None for the default.
        hosts: Host names to which an auth object may send the token; None: wherever it is used.
        form_encode_basic: Whether id and secret are form-encoded before they go into the header, as RFC 6749
            §2.3.1 asks. False for servers that do not decode them.
        default_life: Seconds that a token lives if the server does not say.

    Raises:
        ConfigurationError: Options are missing, contradict each other, or cannot work.
    """

    __slots__ = (
        "_audience",
        "_auth",
        "_default_life",
        "_resource",
        "_scope",
        "allow_http",
        "hosts",
        "refresh_before",
        "shareable",
        "token_url",
    )

    kind = "oauth2"
    token_url: str

    @without_locals
    def __init__(
        self,
        *,
        token_url: str,
        client_id: str,
        client_secret: str | None = None,
        scope: str = "",
        audience: str | None = None,
        resource: str | None = None,
        auth_method: AuthMethod = "client_secret_basic",
        client_assertion: str | Callable[[], str | Awaitable[str]] | None = None,
        credential_id: str | None = None,
        allow_http: bool = False,
        refresh_before: float | None = None,
        hosts: Iterable[str] | None = None,
        form_encode_basic: bool = True,
        default_life: float = 600.0,
    ) -> None:
        name = type(self).__name__
        self.allow_http = allow_http
        self.token_url = checked_token_url(token_url, option=f"{name}(token_url=…)", allow_http=allow_http)
        self._auth = ClientAuth(
            client_id,
            provider=name,
            method=auth_method,
            secret=client_secret,
            assertion=client_assertion,
            credential_id=credential_id,
            form_encode_basic=form_encode_basic,
        )
        self.shareable = self._auth.shareable
        self._scope = credential_text(scope, option=f"{name}(scope=…), scopes separated by spaces,", empty=True)
        for option, value in (("audience", audience), ("resource", resource)):
            if value is not None:
                credential_text(value, option=f"{name}({option}=…)")
        self._audience = audience
        self._resource = resource
        self.hosts = host_names(hosts, option=f"{name}(hosts=…)")
        if refresh_before is not None:
            refresh_before = positive_seconds(refresh_before, option=f"{name}(refresh_before=…)")
        self.refresh_before = refresh_before
        self._default_life = positive_seconds(default_life, option=f"{name}(default_life=…)")

    def identity(self) -> tuple[object, ...]:
        """Return what makes this credential differ from another one; the secret is part of it."""
        scopes = tuple(sorted(set(self._scope.split())))
        return (self.token_url, *self._auth.identity(), scopes, self._audience, self._resource)

    async def fetch(self, http: TokenHTTP) -> Grant:
        """Ask the token endpoint for a token (RFC 6749 §4.4.2).

        Raises:
            CredentialRejected: The server refuses the credential or the request (RFC 6749 §5.2).
            TokenUnavailable: It cannot be reached, is busy, or its answer makes no sense; or
                `client_assertion` failed.
        """
        proof = await self._auth.prove()
        answer = await http.request("POST", self.token_url, data={**self._form(), **proof.form}, headers=proof.headers)
        return grant_of(answer, default_life=self._default_life, repeats_secret=proof.is_in)

    def is_rejected(self, answer: OutgoingAnswer) -> bool:
        """Return whether an API said that the token is not valid (RFC 6750 §3.1)."""
        return bearer_rejected(answer)

    def _form(self) -> dict[str, str]:
        asked = {"scope": self._scope.strip(), "audience": self._audience, "resource": self._resource}
        return {"grant_type": "client_credentials", **{name: value for name, value in asked.items() if value}}
