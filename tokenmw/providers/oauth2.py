"""The OAuth 2.0 client credentials grant, for any server that offers it (RFC 6749 §4.4)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from tokenmw.errors import ConfigurationError
from tokenmw.options import checked_flag, credential_text, optional_seconds, positive_seconds
from tokenmw.providers.base import OutgoingAnswer, Provider
from tokenmw.providers.client_auth import AuthMethod, ClientAuth
from tokenmw.providers.construction import reuses_checks
from tokenmw.providers.grant_reader import GrantReader, bearer_rejected
from tokenmw.providers.urls import checked_hosts, checked_private, checked_token_url
from tokenmw.redaction import without_locals
from tokenmw.values import MAX_LIFETIME

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from tokenmw.providers.client_auth import Proof
    from tokenmw.providers.http import TokenHTTP
    from tokenmw.values import Grant

__all__ = ["ClientCredentials"]

_SCHEME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")


@reuses_checks
class ClientCredentials(Provider):
    """A client of an OAuth 2.0 server, with a secret or with signed assertions.

    >>> ClientCredentials(
    ...     token_url="https://idp.example/token", client_id="crm", client_secret="…", scope="crm.read"
    ... )
    <ClientCredentials>

    With a private key instead of a secret (RFC 7523 §2.2), here with PyJWT from the extra `jwt`::

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
        token_url: The token endpoint: https, unless it is on this machine.
        client_id: The client's id at the server.
        client_secret: The client's secret, for the two `client_secret_…` methods. While it is changed, a list: the new
            one and the old one. If the server refuses the first, the next one is tried.
        scope: The scopes to request, separated by spaces. Their order makes no other credential; they are sent as
            given. Default: none, the server decides.
        audience: The API that the token is for, where the server expects `audience`. Default: not sent.
        resource: The API that the token is for, where the server follows RFC 8707. Default: not sent.
        auth_method: How the client authenticates (RFC 6749 §2.3.1, RFC 7523 §2.2): `client_secret_basic` in a header,
            `client_secret_post` in the form, or `private_key_jwt` with `client_assertion`.
        client_assertion: A signed assertion, or a function, sync or async, that returns a new one. The function is
            called for each attempt, because servers refuse an assertion that they have seen.
        credential_id: A name for the key behind `client_assertion`; change it with the key. Default: none, and the
            tokens that a function obtains are not shared with other provider objects or through Redis, so every
            process fetches its own.
        allow_http: Allows plain HTTP to other machines, for `token_url` and for requests of auth objects. Default:
            False, it is refused, because the network would see secret and token.
        refresh_before: Seconds before expiry at which a new token is fetched in the background. Default: a quarter of
            the lifetime, at most 3600 s; or earlier, after the seconds that the server sends as `refresh_in`.
        hosts: Host names to which auth objects send the token; one that begins with a dot stands for every name below
            it. Default: every host, so the token goes wherever the program sends a request with the auth object.
        form_encode_basic: Whether id and secret are form-encoded in the `Authorization` header, as RFC 6749 §2.3.1
            requires. Default: True; servers that do not decode them refuse secrets with special characters, and need
            False.
        default_life: The lifetime in seconds of a token whose response does not say one. Default: 600 s; where tokens
            live longer, they are fetched more often than necessary.
        max_life: The lifetime in seconds to which a longer one is cut, for servers that send milliseconds in
            `expires_in`. Default: 30 days.
        zero_means_default_life: Whether `expires_in: 0` means `default_life`, for servers that send it for tokens
            without an expiry. Default: False, the token counts as expired, and is refused.
        scheme: The word in front of the token in the `Authorization` header, whatever `token_type` the server names.
            Default: `Bearer`, and tokens of the types `DPoP`, `MAC`, `PoP` and `mtls_pop`, which need more than a
            header, and `N_A`, which are no access tokens, are refused.
        log_description: Whether the log and `status()` show the server's `error_description` of a refusal, at most 200
            characters, and not if it repeats a part of the secret. Callers never see it. Default: False, only the
            `error` code, because servers may repeat in it what was sent.
        allow_private: False is for a `token_url` that a tenant chooses: one with a private, loopback, link-local or
            otherwise special address is refused, and requests connect to public addresses only, whatever the name
            resolves to. It needs the broker's own HTTP client. Default: True, any address.

    Raises:
        ConfigurationError: An option is missing, contradicts another one, or cannot work.
    """

    __slots__ = (
        "_audience",
        "_auth",
        "_reader",
        "_resource",
        "_scope",
        "allow_http",
        "allow_private",
        "hosts",
        "refresh_before",
        "scheme",
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
        client_secret: str | Sequence[str] | None = None,
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
        max_life: float | None = None,
        zero_means_default_life: bool = False,
        scheme: str | None = None,
        log_description: bool = False,
        allow_private: bool = True,
    ) -> None:
        name = type(self).__name__
        checked_flag(allow_http, option=f"{name}(allow_http=…)")
        checked_flag(zero_means_default_life, option=f"{name}(zero_means_default_life=…)")
        checked_flag(form_encode_basic, option=f"{name}(form_encode_basic=…)")
        self.allow_http = allow_http
        self.token_url = checked_token_url(token_url, option=f"{name}(token_url=…)", allow_http=allow_http)
        self.allow_private = checked_private(allow_private, url=self.token_url, option=f"{name}(token_url=…)")
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
        given: object = scope
        if isinstance(given, (list, tuple, set, frozenset)):
            raise ConfigurationError(f"{name}(scope=…) must be one str, with spaces between the scopes, not a list.")
        self._scope = credential_text(scope, option=f"{name}(scope=…)", empty=True)
        for option, value in (("audience", audience), ("resource", resource)):
            if value is not None:
                credential_text(value, option=f"{name}({option}=…)")
        self._audience = audience
        self._resource = resource
        self.hosts = checked_hosts(hosts, option=f"{name}(hosts=…)")
        self.refresh_before = optional_seconds(refresh_before, option=f"{name}(refresh_before=…)")
        checked_flag(log_description, option=f"{name}(log_description=…)")
        self.scheme = "Bearer" if scheme is None else _checked_scheme(scheme, option=f"{name}(scheme=…)")
        self._reader = GrantReader(
            client=self._auth.client(),
            client_fix=self._auth.fix(method_option=True),
            url=self.token_url,
            default_lifetime=positive_seconds(default_life, option=f"{name}(default_life=…)"),
            max_lifetime=optional_seconds(max_life, option=f"{name}(max_life=…)") or MAX_LIFETIME,
            zero_is_default=zero_means_default_life,
            scheme=scheme,
            scheme_option=f"{name}(scheme=…)",
            log_description=log_description,
        )

    def identity(self) -> tuple[object, ...]:
        """Return what makes this credential differ from another one, the secret included."""
        scopes = tuple(sorted(set(self._scope.split())))
        scheme = () if self._reader.scheme is None else (self._reader.scheme,)
        return (self.token_url, *self._auth.identity(), scopes, self._audience, self._resource, *scheme)

    @without_locals
    async def fetch(self, http: TokenHTTP) -> Grant:
        """Request a token (RFC 6749 §4.4.2).

        Raises:
            CredentialRejected: The server refuses the credential or the request (RFC 6749 §5.2).
            TokenUnavailable: The server cannot be reached, is busy, or its response cannot be used; or
                `client_assertion` failed.
        """

        async def request(proof: Proof) -> Grant:
            form = {**self._form(), **proof.form}
            answer = await http.request("POST", self.token_url, data=form, headers=proof.headers)
            return self._reader.read(answer, proof)

        return await self._auth.grant(request)

    def is_rejected(self, answer: OutgoingAnswer) -> bool:
        """Return whether an API answered that the token is not valid (RFC 6750 §3.1)."""
        return bearer_rejected(answer)

    def _form(self) -> dict[str, str]:
        fields = {"scope": self._scope.strip(), "audience": self._audience, "resource": self._resource}
        return {"grant_type": "client_credentials", **{name: value for name, value in fields.items() if value}}


def _checked_scheme(scheme: object, *, option: str) -> str:
    if isinstance(scheme, str) and _SCHEME.fullmatch(scheme):
        return scheme
    raise ConfigurationError(f'{option} must be one word of at most 64 characters, such as "Bearer".')
