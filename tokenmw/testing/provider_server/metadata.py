"""Discovery documents: where the token endpoints are (RFC 8414, OpenID Connect Discovery)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from tokenmw.testing.provider_server.dpop import ALGORITHMS
from tokenmw.testing.provider_server.endpoint import Endpoint, json_response
from tokenmw.testing.provider_server.subjects import JWT_BEARER, TOKEN_EXCHANGE
from tokenmw.testing.provider_server.user_grants import CREDENTIALS

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from tokenmw.testing.provider_server.fault import Fault
    from tokenmw.testing.provider_server.server import ProviderServer

__all__ = ["EntraMetadata", "OAuth2Keys", "OAuth2Metadata", "OpenIDMetadata"]


class OAuth2Metadata(Endpoint):
    """`GET /.well-known/oauth-authorization-server`: the endpoints of `oauth2` (RFC 8414).

    Each issuer on this server has a document, `http://127.0.0.1:…` as well as `http://127.0.0.1:…/realms/one`, and all
    of them have the same token endpoint.

    Attributes:
        base_url: The beginning of all URLs in the document; None for that of the request.
    """

    name: ClassVar[str] = "oauth2_metadata"
    path: ClassVar[str] = "/.well-known/oauth-authorization-server"
    more_paths: ClassVar[tuple[str, ...]] = ("/.well-known/oauth-authorization-server/{issuer:path}",)
    methods = ("GET",)

    def __init__(self, server: ProviderServer) -> None:
        super().__init__(server)
        self.base_url: str | None = None

    async def answer(self, request: Request, fault: Fault) -> Response:
        """Answer with the document; `Fault(fields={"issuer": …})` makes it that of another issuer."""
        return json_response(fault.change(self.document(request, self.base(request))))

    def base(self, request: Request) -> str:
        """Return the beginning of all URLs, without a slash at the end."""
        return (self.base_url or str(request.base_url)).rstrip("/")

    def document(self, request: Request, base: str) -> dict[str, Any]:
        """Return the fields of the document."""
        path = str(request.path_params.get("issuer", ""))
        issuer = f"{base}/{path}" if path else base
        methods = ["client_secret_basic", "client_secret_post", "client_secret_jwt", "private_key_jwt", "none"]
        methods += ["tls_client_auth", "self_signed_tls_client_auth"] if self.server.oauth2.certificates else []
        algorithms = ["RS256", "PS256", "ES256", "EdDSA", "HS256"]
        return {
            "issuer": issuer,
            "authorization_endpoint": f"{issuer}{self.server.authorize.path}",
            "token_endpoint": f"{base}{self.server.oauth2.path}",
            "device_authorization_endpoint": f"{base}{self.server.device.path}",
            "revocation_endpoint": f"{base}{self.server.revocation.path}",
            "jwks_uri": f"{base}{OAuth2Keys.path}",
            "grant_types_supported": ["client_credentials", *CREDENTIALS, TOKEN_EXCHANGE, JWT_BEARER],
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": self.server.users.iss is not None,
            "token_endpoint_auth_methods_supported": methods,
            "token_endpoint_auth_signing_alg_values_supported": algorithms,
            "tls_client_certificate_bound_access_tokens": True,
            "dpop_signing_alg_values_supported": ALGORITHMS,
            "revocation_endpoint_auth_methods_supported": methods,
            "revocation_endpoint_auth_signing_alg_values_supported": algorithms,
        }


class OpenIDMetadata(OAuth2Metadata):
    """`GET /.well-known/openid-configuration`, also below the path of an issuer (OpenID Connect Discovery §4)."""

    name = "openid_metadata"
    path = "/.well-known/openid-configuration"
    more_paths = ("/{issuer:path}/.well-known/openid-configuration",)

    def document(self, request: Request, base: str) -> dict[str, Any]:
        """Return the fields of the document, with those that OpenID clients require."""
        return super().document(request, base) | {
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256", "HS256"],
        }


class EntraMetadata(OAuth2Metadata):
    """`GET /{tenant}/v2.0/.well-known/openid-configuration`, which Microsoft's own libraries read first."""

    name = "entra_metadata"
    path = "/{tenant}/v2.0/.well-known/openid-configuration"
    more_paths = ("/{tenant}/.well-known/openid-configuration",)

    async def answer(self, request: Request, fault: Fault) -> Response:
        """Answer with the document of a tenant; an unknown one is refused, as on the platform."""
        if not self.server.entra.knows_tenant(str(request.path_params["tenant"])):
            return json_response({"error": "invalid_tenant", "error_codes": [90002]}, 400)
        return await super().answer(request, fault)

    def document(self, request: Request, base: str) -> dict[str, Any]:
        """Return the fields of the document."""
        tenant = f"{base}/{request.path_params['tenant']}"
        return {
            "issuer": f"{tenant}/v2.0",
            "token_endpoint": f"{tenant}/oauth2/v2.0/token",
            "authorization_endpoint": f"{tenant}/oauth2/v2.0/authorize",
            "device_authorization_endpoint": f"{tenant}/oauth2/v2.0/devicecode",
            "jwks_uri": f"{tenant}/discovery/v2.0/keys",
            "response_types_supported": ["code", "id_token"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt", "client_secret_basic"],
            "tenant_region_scope": None,
        }


class OAuth2Keys(Endpoint):
    """`GET /oauth2/jwks`: the key of id tokens signed with RS256; no other token of this server is signed."""

    name = "oauth2_keys"
    path = "/oauth2/jwks"
    more_paths = ("/{tenant}/discovery/v2.0/keys",)
    methods = ("GET",)

    async def answer(self, request: Request, fault: Fault) -> Response:  # noqa: ARG002  the signature is the base's
        """Answer with the set of keys (RFC 7517 §5); none if id tokens are signed with the secrets of clients."""
        users = self.server.users
        return json_response(
            fault.change({"keys": users.id_tokens.keys() if users.id_token_algorithm == "RS256" else []})
        )
