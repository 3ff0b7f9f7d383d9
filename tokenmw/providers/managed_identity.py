"""The managed identity of an Azure machine or app: a token without any secret, by HTTP from the platform."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.errors import ConfigurationError, CredentialRejected, TokenUnavailable
from tokenmw.options import credential_text, positive_seconds
from tokenmw.providers.answer import http_date
from tokenmw.providers.base import OutgoingAnswer, Provider, lifetime, number
from tokenmw.providers.microsoft_clouds import hosts_of_resource
from tokenmw.providers.oauth2_answer import bearer_rejected
from tokenmw.providers.options import host_names
from tokenmw.providers.token_url import token_url
from tokenmw.redaction import HiddenStr, without_locals
from tokenmw.values import Grant

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tokenmw.providers.answer import Answer
    from tokenmw.providers.http import TokenHTTP

__all__ = ["ManagedIdentity"]

# Link-local: what is sent there does not leave the machine's own network.
_INSTANCE_METADATA: Final = "http://169.254.169.254/metadata/identity/oauth2/token"
_METADATA_VERSION: Final = "2018-02-01"
_APP_SERVICE_VERSION: Final = "2019-08-01"
_BEING_UPDATED: Final = frozenset({404, 410})


class ManagedIdentity(Provider):
    """The managed identity of the Azure machine, app or container that this program runs in.

    >>> ManagedIdentity(resource="https://graph.microsoft.com")
    <ManagedIdentity>

    On a virtual machine or in AKS that is all. In App Service, Functions and Container Apps the platform tells the
    endpoint in two variables::

        ManagedIdentity(
            resource="https://api.botframework.com",
            client_id="00000000-…",
            identity_endpoint=os.environ["IDENTITY_ENDPOINT"],
            identity_header=os.environ["IDENTITY_HEADER"],
        )

    See https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token and
    https://learn.microsoft.com/azure/app-service/overview-managed-identity.

    Args:
        resource: What the token is for, without `/.default`.
        client_id: A user-assigned identity; None: the one of the machine or app. Only tokens of a user-assigned
            identity are shared through Redis: another machine has another identity of its own.
        identity_endpoint: The endpoint; None: that of virtual machines (IMDS).
        identity_header: The secret that goes with `identity_endpoint`.
        refresh_before: Seconds before expiry at which a new token is fetched; None for the default.
        hosts: Host names to which an auth object may send the token; None: those of Graph or of the bots' channels if
            the resource is that, else wherever it is used.
        allow_http: Allows to do without TLS outside this machine.

    Raises:
        ConfigurationError: Options are missing, contradict each other, or cannot work.
    """

    __slots__ = (
        "_client_id",
        "_header",
        "_resource",
        "_url",
        "allow_http",
        "hosts",
        "refresh_before",
        "shareable",
    )

    kind = "managed_identity"

    @without_locals
    def __init__(
        self,
        *,
        resource: str,
        client_id: str | None = None,
        identity_endpoint: str | None = None,
        identity_header: str | None = None,
        refresh_before: float | None = None,
        hosts: Iterable[str] | None = None,
        allow_http: bool = False,
    ) -> None:
        texts = {"resource": resource, "client_id": client_id, "identity_header": identity_header}
        for name, text in texts.items():
            if text is not None or name == "resource":
                credential_text(text, option=f"ManagedIdentity({name}=…)")
        if resource.endswith("/.default"):
            raise ConfigurationError('ManagedIdentity(resource=…) is the resource alone: leave out "/.default".')
        if identity_header is not None and identity_endpoint is None:
            raise ConfigurationError("ManagedIdentity(identity_header=…) needs identity_endpoint=… with it.")
        option = "ManagedIdentity(identity_endpoint=…)"
        self._url = (
            _INSTANCE_METADATA
            if identity_endpoint is None
            else token_url(identity_endpoint, option=option, allow_http=allow_http)
        )
        self._resource = resource
        self._client_id = client_id
        self._header = None if identity_header is None else HiddenStr(identity_header)
        self.shareable = client_id is not None
        self.hosts = host_names(hosts, option="ManagedIdentity(hosts=…)") or hosts_of_resource(resource)
        self.allow_http = allow_http
        if refresh_before is not None:
            refresh_before = positive_seconds(refresh_before, option="ManagedIdentity(refresh_before=…)")
        self.refresh_before = refresh_before

    def identity(self) -> tuple[object, ...]:
        """Return the resource and the identity; one of the machine's own is known by its endpoint alone."""
        # A user-assigned identity is the same one at the endpoints of all machines.
        own = (self._url, self._header) if self._client_id is None else None
        return (self._resource, self._client_id, own)

    async def fetch(self, http: TokenHTTP) -> Grant:
        """Ask the platform for a token.

        Raises:
            CredentialRejected: There is no such identity here, or it may not have a token for the resource.
            TokenUnavailable: The endpoint cannot be reached, is busy, or its answer makes no sense.
        """
        metadata = self._header is None
        asked = {"api-version": _METADATA_VERSION if metadata else _APP_SERVICE_VERSION, "resource": self._resource}
        if self._client_id is not None:
            asked["client_id"] = self._client_id
        joint = "&" if "?" in self._url else "?"
        answer = await http.request(
            "GET",
            f"{self._url}{joint}{urlencode(asked)}",
            headers={"metadata": "true"} if self._header is None else {"x-identity-header": self._header},
        )
        answer.check_busy()
        if answer.status in _BEING_UPDATED:
            raise TokenUnavailable(f"the identity endpoint is being updated (HTTP {answer.status})")
        if not 200 <= answer.status < 300:
            # Another machine's identity may be all right.
            raise CredentialRejected(
                f"the identity endpoint refuses (HTTP {answer.status}): check that the identity is assigned here, "
                f"client_id, resource, and identity_header",
                said=False,
            )
        return _granted(answer)

    def is_rejected(self, answer: OutgoingAnswer) -> bool:
        """Return whether an API said that the token is not valid; see `Entra`."""
        return bearer_rejected(answer)


@without_locals
def _granted(answer: Answer) -> Grant:
    fields = answer.json()
    return Grant(fields.get("access_token", ""), expires_in=_life(fields, answer))


def _life(fields: Mapping[str, Any], answer: Answer) -> float:
    # Both are text as a rule. App Service gives the instant only, by the clock of its answer.
    if fields.get("expires_in") not in (None, ""):
        return lifetime(fields["expires_in"])
    ends = number(fields.get("expires_on"))
    if ends is None:
        raise TokenUnavailable("the answer does not say how long the token lives")
    sent = http_date(answer.headers.get("date", ""))
    return lifetime(ends - (SYSTEM_CLOCK.time() if sent is None else sent))
