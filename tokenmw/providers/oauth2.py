"""The OAuth 2.0 client credentials grant, for any server that offers it (RFC 6749 §4.4), and its responses (§5)."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

from tokenmw.errors import ConfigurationError, CredentialRejected, TokenUnavailable
from tokenmw.options import credential_text, optional_seconds, positive_seconds
from tokenmw.providers.answer import lifetime
from tokenmw.providers.base import OutgoingAnswer, Provider
from tokenmw.providers.client_auth import AuthMethod, ClientAuth
from tokenmw.providers.urls import checked_hosts, checked_token_url
from tokenmw.redaction import without_locals
from tokenmw.values import Grant

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from tokenmw.providers.answer import Answer
    from tokenmw.providers.http import TokenHTTP

__all__ = ["ClientCredentials", "bearer_rejected", "grant_of"]

# RFC 6749 §5.2 and RFC 8707 §2: the same request will get the same response. Each with the fix.
_PERMANENT: Final = {
    "invalid_client": "check client_id, the secret and auth_method",
    "invalid_grant": "check the credential",
    "invalid_request": "check auth_method and the other options",
    "invalid_scope": "check scope",
    "invalid_target": "check resource and audience",
    "unauthorized_client": "the client needs the permission to use this grant type",
    "unsupported_grant_type": "check token_url: this endpoint does not offer the grant type",
}
# RFC 6749 §4.1.2.1, RFC 8628 §3.5: token endpoints use them too, some with status 400.
_TRANSIENT: Final = frozenset({"server_error", "slow_down", "temporarily_unavailable"})

_CODE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_ERROR_OF_CHALLENGE: Final = re.compile(r"""(?<![\w-])error\s*=\s*"?([\w.-]+)""", re.ASCII)
# A new token of the same kind would have the same permissions (RFC 6750 §3.1, RFC 9470 §3).
_NOT_ABOUT_VALIDITY: Final = frozenset({"insufficient_scope", "insufficient_claims"})

_CLIENT_ERROR: Final = 400
_FORBIDDEN: Final = 403
_REFUSED: Final = frozenset({400, 401, 403})

_NOT_EXTRA: Final = frozenset(
    {"access_token", "refresh_token", "id_token", "expires_in", "token_type", "error", "error_description"}
)
# The extra fields are kept as long as the token, once for each credential.
_MAX_EXTRAS: Final = 32
_MAX_EXTRA_CHARACTERS: Final = 4096


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
        client_secret: The client's secret, for the two `client_secret_…` methods.
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
            the lifetime, at most 3600 s.
        hosts: Host names to which auth objects send the token; one that begins with a dot stands for every name below
            it. Default: every host, so the token goes wherever the program sends a request with the auth object.
        form_encode_basic: Whether id and secret are form-encoded in the `Authorization` header, as RFC 6749 §2.3.1
            requires. Default: True; servers that do not decode them refuse secrets with special characters, and need
            False.
        default_life: The lifetime in seconds of a token whose response does not say one. Default: 600 s; where tokens
            live longer, they are fetched more often than necessary.

    Raises:
        ConfigurationError: An option is missing, contradicts another one, or cannot work.
    """

    __slots__ = (
        "_audience",
        "_auth",
        "_default_lifetime",
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
        self._default_lifetime = positive_seconds(default_life, option=f"{name}(default_life=…)")

    def identity(self) -> tuple[object, ...]:
        """Return what makes this credential differ from another one, the secret included."""
        scopes = tuple(sorted(set(self._scope.split())))
        return (self.token_url, *self._auth.identity(), scopes, self._audience, self._resource)

    @without_locals
    async def fetch(self, http: TokenHTTP) -> Grant:
        """Request a token (RFC 6749 §4.4.2).

        Raises:
            CredentialRejected: The server refuses the credential or the request (RFC 6749 §5.2).
            TokenUnavailable: The server cannot be reached, is busy, or its response cannot be used; or
                `client_assertion` failed.
        """
        proof = await self._auth.prove()
        answer = await http.request("POST", self.token_url, data={**self._form(), **proof.form}, headers=proof.headers)
        return grant_of(answer, default_lifetime=self._default_lifetime, repeats_secret=proof.is_in)

    def is_rejected(self, answer: OutgoingAnswer) -> bool:
        """Return whether an API answered that the token is not valid (RFC 6750 §3.1)."""
        return bearer_rejected(answer)

    def _form(self) -> dict[str, str]:
        fields = {"scope": self._scope.strip(), "audience": self._audience, "resource": self._resource}
        return {"grant_type": "client_credentials", **{name: value for name, value in fields.items() if value}}


def grant_of(answer: Answer, *, default_lifetime: float | None, repeats_secret: Callable[[str], bool]) -> Grant:
    """Return the token that a token endpoint granted (RFC 6749 §5.1).

    Args:
        answer: The endpoint's response.
        default_lifetime: Seconds that a token lives if the response does not say; None: that is an error.
        repeats_secret: Returns whether a text repeats a secret that was sent. Such an error code is not shown, and such
            a field is not kept.

    Raises:
        CredentialRejected: The endpoint refuses the credential or the request, or is not a token endpoint.
        TokenUnavailable: The endpoint is busy, or its response cannot be used.
    """
    answer.check_busy()
    if not 200 <= answer.status < 300:
        raise _refusal(answer, _fields_or_none(answer), repeats_secret)
    fields = answer.json()
    if fields.get("error"):
        raise _refusal(answer, fields, repeats_secret)
    kind = fields.get("token_type")
    return Grant(
        fields.get("access_token", ""),
        expires_in=lifetime(fields.get("expires_in"), default=default_lifetime),
        # The type is case-insensitive (RFC 6749 §5.1), but APIs that compare it are not.
        token_type="Bearer" if not kind or str(kind).lower() == "bearer" else kind,
        extra=_extra(fields, repeats_secret),
    )


def bearer_rejected(answer: OutgoingAnswer) -> bool:
    """Return whether an API answered that the token is not valid (RFC 6750 §3.1).

    That is a 401, unless its challenge says that the token is valid and lacks a permission.
    """
    if answer.status != 401:
        return False
    errors = set(_ERROR_OF_CHALLENGE.findall(answer.headers.get("www-authenticate", "").lower()))
    return not errors or not errors <= _NOT_ABOUT_VALIDITY


def _fields_or_none(answer: Answer) -> dict[str, Any]:
    try:
        return answer.json()
    except TokenUnavailable:
        return {}


def _refusal(
    answer: Answer, fields: Mapping[str, Any], repeats_secret: Callable[[str], bool]
) -> CredentialRejected | TokenUnavailable:
    status = answer.status
    code = fields.get("error")
    code = code if isinstance(code, str) else ""
    shown = code if _CODE.fullmatch(code) and not repeats_secret(code) else ""
    answered = f"{shown}, HTTP {status}" if shown else f"HTTP {status}"
    if code in _TRANSIENT:
        return TokenUnavailable(
            f"the token endpoint cannot serve now ({answered})", retry_after=answer.retry_after, said=True
        )
    if code in _PERMANENT or status in _REFUSED or (code and status < _CLIENT_ERROR):
        fix = _PERMANENT.get(code, "check the credential")
        # A bare 403 comes from a firewall that refuses this machine's address, not from an RFC 6749 server.
        return CredentialRejected(
            f"the token endpoint refuses ({answered}): {fix}",
            code=shown,
            said=bool(code) or status != _FORBIDDEN,
        )
    if status < _CLIENT_ERROR:
        return TokenUnavailable("the token endpoint answered with an error that is not text")
    return CredentialRejected(f"there is no token endpoint at this URL ({answered}): check token_url", code=shown)


def _extra(fields: Mapping[str, Any], repeats_secret: Callable[[str], bool]) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    for name, value in fields.items():
        if name in _NOT_EXTRA or len(extra) == _MAX_EXTRAS or len(name) > _MAX_EXTRA_CHARACTERS:
            continue
        # Extra fields go into Redis with the token, and are readable there unless values are sealed.
        if repeats_secret(name) or (isinstance(value, str) and repeats_secret(value)):
            continue
        # NaN and Infinity are not JSON, but Python's reader accepts them.
        finite = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
        if finite or (isinstance(value, str) and len(value) <= _MAX_EXTRA_CHARACTERS):
            extra[name] = value
    return extra
