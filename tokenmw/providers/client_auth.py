"""How a client authenticates to a token endpoint (RFC 6749 §2.3.1, RFC 7523 §2.2, RFC 8705 §2)."""

from __future__ import annotations

import base64
import secrets
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, get_args
from urllib.parse import quote

from tokenmw.errors import ConfigurationError, TokenUnavailable
from tokenmw.options import checked_choice, checked_flag, credential_text, did_you_mean
from tokenmw.providers.base import call_credential
from tokenmw.providers.client_certificate import ClientCertificate
from tokenmw.providers.client_secrets import ClientSecrets
from tokenmw.providers.jwt_assertion import SecretAlgorithm, client_claims, signed_with_secret
from tokenmw.providers.private_key_jwt import PrivateKeyJWT, signed_text
from tokenmw.providers.proof import Proof, shown_option
from tokenmw.providers.secret_sources import SecretSource
from tokenmw.redaction import FrozenValue, HiddenStr

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from tokenmw.providers.secret_sources import Secret

__all__ = ["AuthMethod", "ClientAuth", "Proof", "default_method"]

R = TypeVar("R")

AuthMethod = Literal[
    "client_secret_basic",
    "client_secret_post",
    "client_secret_jwt",
    "private_key_jwt",
    "tls_client_auth",
    "self_signed_tls_client_auth",
]

_TLS: Final = frozenset({"tls_client_auth", "self_signed_tls_client_auth"})  # RFC 8705 §2

_ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_MIN_HMAC_BYTES: Final = 16
_MAX_ASSERTION_CHARACTERS: Final = 64 << 10
# The codes of a refused secret: of RFC 6749 §5.2, of Keycloak's and Auth0's servers, and of a bare 401.
_SECRET_REFUSED: Final = frozenset({"invalid_client", "unauthorized_client", "access_denied", ""})
_FULL_NAMES: Final = {
    "basic": "client_secret_basic",
    "post": "client_secret_post",
    "secret_basic": "client_secret_basic",
    "secret_post": "client_secret_post",
    "secret_jwt": "client_secret_jwt",
    "jwt": "private_key_jwt",
    "mtls": "tls_client_auth",
    "self_signed": "self_signed_tls_client_auth",
}


class ClientAuth(FrozenValue):
    """A client's id and its secret or assertion, for one of the methods. Providers build on it.

    Args:
        client_id: The client's id at the server.
        provider: The provider's class name, for error texts.
        method: One of :data:`AuthMethod`; None: one of the first two, which each request names.
        secret: For the methods `client_secret_…`; a list while it is changed.
        assertion: For `private_key_jwt`: a key that signs, a signed JWT, where to read one, or a function, sync or
            async, that returns a new one. It is made or read for each attempt, because servers refuse an assertion
            that they have seen.
        credential_id: A name for the key behind `assertion`.
        form_encode_basic: Whether id and secret are form-encoded in the `Authorization` header.
        audience: The audience of assertions that are made here; None: the token endpoint.
        algorithm: The algorithm of `client_secret_jwt`; None: HS256.
        certificate: The certificate that connections to the token endpoint show; the methods of RFC 8705 need one. With
            another method, the server may bind tokens to it.
        options: The names of the provider's options for the id and the secret, for error texts.

    Attributes:
        certificate: The certificate that connections to the token endpoint show, or None.
        shareable: Whether other processes can make the same proof.

    Raises:
        ConfigurationError: A value is missing, contradicts the method, or is not text.
    """

    __slots__ = (
        "_algorithm",
        "_assertion",
        "_audience",
        "_credential_id",
        "_form_encode",
        "_id",
        "_method",
        "_options",
        "_secrets",
        "certificate",
        "shareable",
    )

    certificate: ClientCertificate | None
    shareable: bool
    _options: tuple[str, str]
    _assertion: str | Callable[[], Any] | PrivateKeyJWT | SecretSource | None
    _algorithm: SecretAlgorithm | None
    _audience: str | None
    _credential_id: str | None
    _form_encode: bool
    _id: str
    _method: AuthMethod | None
    _secrets: ClientSecrets | None

    def __init__(
        self,
        client_id: str,
        *,
        provider: str,
        method: AuthMethod | None,
        secret: Secret | None,
        assertion: str | Callable[[], str | Awaitable[str]] | PrivateKeyJWT | SecretSource | None,
        credential_id: str | None,
        form_encode_basic: bool = True,
        audience: str | None = None,
        algorithm: SecretAlgorithm | None = None,
        certificate: ClientCertificate | None = None,
        options: tuple[str, str] = ("client_id", "client_secret"),
    ) -> None:
        checked_flag(form_encode_basic, option=f"{provider}(form_encode_basic=…)")
        _check_method(method, provider=provider, secret=secret, assertion=assertion)
        _check_certificate(certificate, provider=provider, method=method)
        makes = method == "client_secret_jwt" or isinstance(assertion, PrivateKeyJWT)
        _check_assertion_options(method, provider=provider, audience=audience, algorithm=algorithm, makes=makes)
        texts: dict[str, object] = {"client_id": client_id, "credential_id": credential_id}
        if isinstance(assertion, type) or not (
            callable(assertion) or isinstance(assertion, (PrivateKeyJWT, SecretSource))
        ):
            texts["client_assertion"] = assertion
        for name, text in texts.items():
            if text is not None or name == "client_id":
                checked = signed_text if name == "client_assertion" else credential_text
                checked(text, option=f"{provider}({name}=…)")
        if method in (None, "client_secret_basic") and not form_encode_basic and ":" in client_id:
            raise ConfigurationError(
                f"{provider}(client_id=…) has a colon, which would end it in the Authorization header: "
                f'leave form_encode_basic=True, or use auth_method="client_secret_post".'
            )
        if credential_id is not None and assertion is None and certificate is None:
            raise ConfigurationError(
                f"{provider}(credential_id=…) is the name of the key behind client_assertion=…: leave it out with "
                f"{options[1]}=…."
            )
        if method not in (None, "client_secret_basic") and not form_encode_basic:
            raise ConfigurationError(
                f'{provider}(form_encode_basic=False) is for auth_method="client_secret_basic", not for "{method}": '
                f"leave it out."
            )
        put = object.__setattr__
        put(self, "_options", options)
        put(self, "_id", client_id)
        put(self, "_method", method)
        option = f"{provider}(client_secret=…)"
        given = None if secret is None else ClientSecrets(secret, option=option)
        if method == "client_secret_jwt" and given is not None:
            _check_length(given.all, option=option)
        put(self, "_secrets", given)
        put(self, "_assertion", HiddenStr(assertion) if isinstance(assertion, str) else assertion)
        put(self, "_algorithm", algorithm)
        put(self, "_audience", audience)
        put(self, "_form_encode", form_encode_basic)
        put(self, "certificate", certificate)
        put(self, "shareable", credential_id is not None or not callable(assertion))
        # Two functions cannot be compared by the key they use, and id() is reused after its object is freed.
        put(self, "_credential_id", credential_id if self.shareable else f"object {secrets.token_hex(16)}")

    def identity(self) -> tuple[object, ...]:
        """Return what makes this client differ from another one, the secrets included."""
        # With a credential_id, a newer assertion is the same credential.
        fixed: object = None
        if self._credential_id is None:
            assertion = self._assertion
            if isinstance(assertion, PrivateKeyJWT):
                fixed = assertion.identity()
            else:
                fixed = ("source", assertion.credential_id) if isinstance(assertion, SecretSource) else assertion
        secret = None if self._secrets is None else self._secrets.identity()
        return (self._id, self._method, secret, fixed, self._credential_id)

    def more_identity(self) -> tuple[object, ...]:
        """Return the part of the identity that only clients with a certificate or an option for assertions have."""
        given = (self._audience, self._algorithm)
        assertion = () if given == (None, None) else (("assertion", *given),)
        # With a credential_id, a newer certificate is the same credential.
        fixed = None if self.certificate is None or self._credential_id is not None else self.certificate.identity()
        return assertion if fixed is None else (*assertion, fixed)

    async def grant(
        self,
        request: Callable[[Proof], Awaitable[R]],
        *,
        token_url: str,
        method: AuthMethod = "client_secret_basic",
    ) -> R:
        """Request a token; again with the next secret if there is one and the server refuses the first.

        Args:
            request: Sends one token request with a client authentication.
            token_url: The token endpoint, which is the audience of assertions that are made here.
            method: The method of a client that was made without one.

        Raises:
            CredentialRejected: The server refuses the client.
            TokenUnavailable: As `request` raises it, or the `client_assertion` function failed.
        """
        secrets = self._secrets
        if secrets is None:
            return await request(await self.prove(token_url=token_url))
        chosen = self._method or method
        return await secrets.grant(
            lambda secret: request(self._prove(secret, token_url, chosen)), codes=_SECRET_REFUSED
        )

    async def prove(self, *, token_url: str = "") -> Proof:
        """Return the client authentication of one token request, with the secret that was accepted last.

        Raises:
            TokenUnavailable: The `client_assertion` function failed, or returned no assertion.
        """
        if self._method in _TLS:
            return Proof("", form={"client_id": self._id}, headers={})
        if self._secrets is None:
            return await self._assert(token_url)
        return self._prove(await self._secrets.accepted(), token_url, self._method or "client_secret_basic")

    def _prove(self, secret: str, token_url: str, method: AuthMethod) -> Proof:
        if method == "client_secret_jwt":
            claims = client_claims(self._id, audience=self._audience or token_url)
            assertion = signed_with_secret(claims, secret, algorithm=self._algorithm or "HS256")
            return Proof(secret, form=self._assertion_form(assertion), headers={}).with_secret(assertion)
        if method == "client_secret_post":
            return Proof(secret, form={"client_id": self._id, "client_secret": secret}, headers={})
        # A space as %20: servers that form-decode read it as they read "+", and some, as Authlib's, decode only "%".
        pair = (quote(self._id, safe=""), quote(secret, safe="")) if self._form_encode else (self._id, secret)
        encoded = base64.b64encode(":".join(pair).encode()).decode()
        return Proof(secret, form={}, headers={"authorization": f"Basic {encoded}"})

    async def _assert(self, token_url: str) -> Proof:
        assertion = self._assertion
        if isinstance(assertion, PrivateKeyJWT):
            assertion = await assertion.assertion(self._id, audience=self._audience or token_url)
        elif isinstance(assertion, SecretSource):
            assertion = (await assertion.read())[0]
        elif callable(assertion):
            assertion = await call_credential(assertion, option="client_assertion")
        if not isinstance(assertion, str) or not assertion or len(assertion) > _MAX_ASSERTION_CHARACTERS:
            raise TokenUnavailable(
                f"client_assertion did not return a str of 1 to {_MAX_ASSERTION_CHARACTERS} characters: "
                f"call the function by itself to see its result"
            )
        return Proof(assertion, form=self._assertion_form(assertion), headers={})

    def _assertion_form(self, assertion: str) -> dict[str, str]:
        return {
            "client_id": self._id,
            "client_assertion_type": _ASSERTION_TYPE,
            "client_assertion": assertion,
        }

    @property
    def chooses_method(self) -> bool:
        """Whether it was made without a method, so that each request names one."""
        return self._method is None

    def client(self) -> str:
        """Return the client for an error text, such as `client_id=crm`; without the id if it repeats the secret."""
        fixed = (self._assertion,) if isinstance(self._assertion, str) else ("",)
        return shown_option(self._options[0], self._id, secrets=fixed if self._secrets is None else self._secrets.all)

    def fix(self, *, method_option: bool) -> str:
        """Return what to check if the server does not accept the client.

        Args:
            method_option: Whether the provider has the options `auth_method` and `form_encode_basic`.
        """
        client_id, secret = self._options
        if self._method in _TLS:
            known = "the subject" if self._method == "tls_client_auth" else "the key (jwks)"
            return f"check {client_id}, auth_method, and that the server has {known} of {self.certificate!r}"
        if isinstance(self._assertion, PrivateKeyJWT):
            return (
                f"check {client_id}, that the server has the public key of PrivateKeyJWT, its key_id and algorithm, "
                f"and this machine's clock"
            )
        if self._assertion is not None:
            return f"check {client_id}, and key, iss, sub, aud and exp of client_assertion"
        fix = f"check {client_id}{',' if method_option else ' and'} {secret}"
        if self._method == "client_secret_jwt":
            fix += ", assertion_algorithm, assertion_audience"
        if not method_option:
            return fix
        fix += f" and auth_method (now {self._method or 'as the server publishes it'})"
        return fix + self.encoding_fix()

    def encoding_fix(self) -> str:
        """Return what to set if the server reads `Authorization` in the other way; "" if that makes no difference."""
        texts = (self._id, *(() if self._secrets is None else self._secrets.all))
        if self._method not in (None, "client_secret_basic") or all(quote(text, safe="") == text for text in texts):
            return ""
        if self._form_encode:
            return "; if the server does not form-decode Basic credentials, set form_encode_basic=False"
        return "; if the server form-decodes Basic credentials (RFC 6749 §2.3.1), leave form_encode_basic=True"

    def __repr__(self) -> str:
        return f"<ClientAuth {self._method}>"


def default_method(
    *, assertion: object, issuer: str | None, secret: object = None, certificate: object = None
) -> AuthMethod | None:
    """Return the method of a client whose provider is given none; None: one that the issuer publishes."""
    if assertion is not None:
        return "private_key_jwt"
    if certificate is not None and secret is None:
        return "tls_client_auth"
    return None if issuer is not None else "client_secret_basic"


def _check_method(method: object, *, provider: str, secret: object, assertion: object) -> None:
    if method is not None and method not in get_args(AuthMethod):
        close = "."
        if isinstance(method, str):
            full = _FULL_NAMES.get(method)
            close = f": did you mean {full!r}?" if full else did_you_mean(method, get_args(AuthMethod))
        raise ConfigurationError(f"{provider}(auth_method=…) must be one of {', '.join(get_args(AuthMethod))}{close}")
    if secret is not None and assertion is not None:
        raise ConfigurationError(
            f"{provider} takes client_secret or client_assertion, not both (RFC 6749 §2.3): leave one out."
        )
    if method == "private_key_jwt" and assertion is None:
        raise ConfigurationError(f'{provider} needs client_assertion=… for auth_method="private_key_jwt".')
    if method != "private_key_jwt" and assertion is not None:
        raise ConfigurationError(f'{provider}(client_assertion=…) needs auth_method="private_key_jwt" with it.')
    if method in _TLS:
        if secret is not None:
            raise ConfigurationError(
                f"{provider} takes no client_secret with auth_method={method!r}: leave it out, or choose another "
                f"auth_method, with which the server may bind tokens to the certificate."
            )
    elif method != "private_key_jwt" and secret is None:
        raise ConfigurationError(f"{provider} needs client_secret=…, or client_assertion=… in its place.")


def _check_certificate(certificate: object, *, provider: str, method: str | None) -> None:
    if certificate is None:
        if method in _TLS:
            raise ConfigurationError(f"{provider} needs certificate=ClientCertificate(…) for auth_method={method!r}.")
    elif not isinstance(certificate, ClientCertificate):
        raise ConfigurationError(
            f"{provider}(certificate=…) must be a ClientCertificate(cert_file, key_file), not "
            f"{type(certificate).__name__}."
        )


def _check_length(secrets: Iterable[str], *, option: str) -> None:
    # RFC 7518 §3.2 wants as many bytes as the hash has; servers that give a shorter secret may accept it. With fewer
    # bytes than these, anyone who sees an assertion can find the secret by trying.
    if any(len(secret.encode()) < _MIN_HMAC_BYTES for secret in secrets):
        raise ConfigurationError(
            f'{option} has fewer than {_MIN_HMAC_BYTES} bytes, which is too short a key for "client_secret_jwt" (RFC '
            f"7518 §3.2: 32 bytes for HS256): have the server make a longer secret, or use another auth_method, such "
            f'as "client_secret_basic".'
        )


def _check_assertion_options(
    method: str | None, *, provider: str, audience: object, algorithm: object, makes: bool
) -> None:
    if audience is not None:
        credential_text(audience, option=f"{provider}(assertion_audience=…)")
        if not makes:
            raise ConfigurationError(
                f"{provider}(assertion_audience=…) is for assertions that this package makes: set "
                f'auth_method="client_secret_jwt" or client_assertion=PrivateKeyJWT(…), or leave it out and set aud in '
                f"the assertion."
            )
    if algorithm is not None:
        option = f"{provider}(assertion_algorithm=…)"
        checked_choice(algorithm, option=option, choices=get_args(SecretAlgorithm))
        if method != "client_secret_jwt":
            raise ConfigurationError(f'{option} needs auth_method="client_secret_jwt" with it.')
