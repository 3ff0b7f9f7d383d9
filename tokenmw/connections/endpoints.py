"""The endpoints of one OAuth 2.0 server for users: given as URLs, or found by the server's issuer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tokenmw.errors import ConfigurationError, TokenUnavailable
from tokenmw.providers.discovery import MTLS, ServerMetadata
from tokenmw.providers.urls import checked_private, checked_token_url
from tokenmw.redaction import FrozenValue, without_locals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenmw.providers.http import TokenHTTP

__all__ = ["Endpoints"]

_FIELDS: Final = {
    "authorize_url": "authorization_endpoint",
    "revoke_url": "revocation_endpoint",
    "device_url": "device_authorization_endpoint",
}
_SENDS_ISSUER: Final = "authorization_response_iss_parameter_supported"


class Endpoints(FrozenValue):
    """Where one server's endpoints are.

    Args:
        owner: The class name of the app, for error texts.
        issuer: The server's issuer, whose metadata have the endpoints that are not given; or None.
        urls: The given endpoints by their options: `authorize_url`, `token_url`, `revoke_url`, `device_url`.
        allow_http: Whether the server may be reached without TLS on another machine.
        allow_private: Whether it may have a private address.

    Attributes:
        allow_private: Whether the server may have a private address.
        issuer: The issuer, or "".
        metadata: The issuer's metadata; None if there is no issuer.
        token_url: The token endpoint; "": the metadata have it.

    Raises:
        ConfigurationError: A URL cannot be used, or neither the issuer nor the token endpoint is given.
    """

    __slots__ = ("_allow_http", "_urls", "allow_private", "issuer", "metadata", "token_url")

    allow_private: bool
    issuer: str
    metadata: ServerMetadata | None
    token_url: str
    _allow_http: bool
    _urls: Mapping[str, str]

    @without_locals
    def __init__(
        self,
        *,
        owner: str,
        issuer: str | None,
        urls: Mapping[str, str | None],
        allow_http: bool,
        allow_private: bool,
    ) -> None:
        given: dict[str, str] = {}
        for name, url in urls.items():
            if url is not None:
                option = f"{owner}({name}=…)"
                given[name] = checked_token_url(url, option=option, allow_http=allow_http)
                allow_private = checked_private(allow_private, url=url, option=option)
        if issuer is None and "token_url" not in given:
            raise ConfigurationError(f"{owner} needs issuer=…, or token_url=… and authorize_url=… in its place.")
        if issuer is not None and "token_url" in given:
            raise ConfigurationError(
                f"{owner} takes issuer=… or token_url=…, not both: the issuer names its endpoints."
            )
        metadata = None
        if issuer is not None:
            metadata = ServerMetadata(issuer, provider=owner, allow_http=allow_http, allow_private=allow_private)
            allow_private = metadata.allow_private
        put = object.__setattr__
        put(self, "_allow_http", allow_http)
        put(self, "_urls", given)
        put(self, "allow_private", allow_private is True)
        put(self, "issuer", issuer or "")
        put(self, "metadata", metadata)
        put(self, "token_url", given.get("token_url", ""))

    def given(self, option: str) -> bool:
        """Return whether an endpoint was given or may be found by the issuer."""
        return option in self._urls or self.metadata is not None

    async def url(self, http: TokenHTTP, option: str, *, mtls: bool = False) -> str:
        """Return the URL of an endpoint by its option; "" if the server has none.

        Args:
            http: Gets the issuer's metadata.
            option: The option.
            mtls: Whether the client shows a certificate; servers may have other URLs for that (RFC 8705 §5).

        Raises:
            TokenUnavailable: The issuer's metadata are not available now, or name an endpoint that cannot be used.
        """
        if option in self._urls:
            return self._urls[option]
        found = await self._found(http)
        field = _FIELDS[option]
        url = str((found.get(f"{MTLS}{field}") if mtls else None) or found.get(field, ""))
        if not url:
            return ""
        try:
            checked_token_url(url, option=f"its {field}", allow_http=self._allow_http)
            checked_private(self.allow_private, url=url, option=f"its {field}")
        except ConfigurationError as error:
            problem = str(error)
        else:
            return url
        raise TokenUnavailable(f"the server of issuer publishes an endpoint that cannot be used: {problem}")

    async def sends_issuer(self, http: TokenHTTP) -> bool:
        """Return whether the server promises an `iss` in each authorization response (RFC 9207 §3)."""
        return (await self._found(http)).get(_SENDS_ISSUER) is True

    async def _found(self, http: TokenHTTP) -> Mapping[str, Any]:
        return {} if self.metadata is None else (await http.token(self.metadata)).extra

    def __repr__(self) -> str:
        return f"<Endpoints of {self.issuer or 'URLs'}>"
