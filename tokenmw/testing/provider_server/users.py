"""The users of the test server: what they consent to, the tokens that come from it, and the requests with those."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, final

from tokenmw.testing.provider_server.codes import Codes
from tokenmw.testing.provider_server.device_codes import DeviceCodes
from tokenmw.testing.provider_server.families import Families, Family, Pair, TokenPost
from tokenmw.testing.provider_server.id_tokens import IdTokens
from tokenmw.testing.provider_server.user_options import UserOptions

if TYPE_CHECKING:
    from tokenmw.clock import Clock
    from tokenmw.testing.provider_server.endpoint import TokenEndpoint
    from tokenmw.testing.provider_server.server import ProviderServer

__all__ = ["Users"]


@final
class Users(UserOptions):
    """Consents of users, and the tokens that come from them. Its options are those of `UserOptions`.

    With a browser, or a client that follows redirects::

        server.users.register("crm", "https://app.test/connect/crm/callback")
        server.users.auto = "ada"

    Without one::

        pair = server.users.grant("ada", client="crm", scope="read")
        server.users.grace = 10.0
        assert pair.family.alive
        assert not server.users.sent_twice

    Attributes:
        redirect_uris: The registered redirect URIs of each client. A URI must be one of them, character by character.
        requests: The parameters of each authorization request, in order.
        posts: Each request with a credential of a user at a token endpoint, in order.
        refresh_counts: The number of requests by refresh token.
        families: All families of tokens.
        codes: All authorization codes.
        devices: All device codes.
        id_tokens: What signs id tokens.
    """

    def __init__(self, server: ProviderServer, *, clock: Clock) -> None:
        super().__init__()
        self._server = server
        self._clock = clock
        self.redirect_uris: dict[str, set[str]] = {}
        self.requests: list[dict[str, str]] = []
        self.posts: list[TokenPost] = []
        self.refresh_counts: Counter[str] = Counter()
        self.families = Families(server.issued, self, clock=clock)
        self.codes = Codes(self.families, self, clock=clock)
        self.devices = DeviceCodes(self, clock=clock)
        self.id_tokens = IdTokens(clock=clock)

    @property
    def refreshes(self) -> list[TokenPost]:
        """The requests with refresh tokens, in order."""
        return [post for post in self.posts if post.grant == "refresh_token"]

    @property
    def sent_twice(self) -> list[str]:
        """The refresh tokens that were sent in more than one request."""
        return [value for value, count in self.refresh_counts.items() if count > 1]

    def register(self, client: str, *redirect_uris: str) -> None:
        """Register redirect URIs of a client, in addition to those it has."""
        self.redirect_uris.setdefault(client, set()).update(redirect_uris)

    def grant(self, user: str, *, client: str, scope: str = "", endpoint: TokenEndpoint | None = None) -> Pair:
        """Return the first pair of a new family, as if the user had consented in a browser.

        Args:
            user: The user.
            client: The client.
            scope: What the user consents to.
            endpoint: The token endpoint that serves the pair; `server.oauth2` by default.
        """
        return self.families.begin(endpoint or self._server.oauth2, user, client, scope=scope)

    def family_of(self, refresh_token: str) -> Family:
        """Return the family of a refresh token.

        Raises:
            KeyError: It was not issued here.
        """
        family = self.families.find(refresh_token)
        if family is None:
            raise KeyError(refresh_token)
        return family

    def revoke(self, user: str, *, client: str | None = None) -> None:
        """Revoke all tokens of a user, of one client or of all, as the user can on the provider's account page."""
        for family in self.families.all():
            if family.user == user and client in (None, family.client):
                self.families.revoke(family)

    def approve_device(self, user_code: str, user: str) -> None:
        """Approve a device, as the user does on the page for it.

        Raises:
            KeyError: No device code that is still open has this user code.
        """
        self.devices.with_user_code(user_code).user = user

    def deny_device(self, user_code: str) -> None:
        """Deny a device, as the user can on the page for it.

        Raises:
            KeyError: No device code that is still open has this user code.
        """
        self.devices.with_user_code(user_code).denied = True

    def record(self, grant: str, credential: str, client: str) -> TokenPost:
        """Record a request at a token endpoint. For endpoints."""
        post = TokenPost(grant, credential, client, self._clock.monotonic())
        self.posts.append(post)
        if grant == "refresh_token":
            self.refresh_counts[credential] += 1
            post.family = self.families.find(credential)
            if post.family is not None:
                post.family.posts.append(post)
        return post
