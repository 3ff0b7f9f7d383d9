"""A user's connection as a provider: its token is cached, shared and refreshed like any other."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, runtime_checkable

from tokenmw.providers.base import OutgoingAnswer, OutgoingRequest, Provider

if TYPE_CHECKING:
    from tokenmw.connections.pair import TokenPair
    from tokenmw.providers.http import TokenHTTP
    from tokenmw.values import Grant, Token

__all__ = ["ConnectionApp", "UserToken"]


@runtime_checkable
class ConnectionApp(Protocol):
    """What a connection needs of its app; `OAuthApp` is one."""

    @property
    def client_id(self) -> str:
        """The client's id."""
        ...

    @property
    def scope(self) -> str:
        """The scopes, separated by spaces."""
        ...

    @property
    def hosts(self) -> frozenset[str] | None:
        """As of a provider."""
        ...

    @property
    def refresh_before(self) -> float | None:
        """As of a provider."""
        ...

    @property
    def allow_http(self) -> bool:
        """As of a provider."""
        ...

    @property
    def allow_private(self) -> bool:
        """As of a provider."""
        ...

    async def refresh(self, http: TokenHTTP, refresh_token: str, *, scope: str = "") -> TokenPair:
        """Spend a refresh token.

        Raises:
            GrantRefused: The server refuses the refresh token.
            CredentialRejected: It refuses the client.
            TokenUnavailable: Any other failure. The refresh token may be spent nevertheless.
        """
        ...

    async def revoke(self, http: TokenHTTP, token: str, *, hint: Literal["access_token", "refresh_token"]) -> None:
        """Revoke a token."""
        ...

    def authorize(self, request: OutgoingRequest, token: Token) -> None:
        """Put an access token where the platform's API expects it."""
        ...

    def is_rejected(self, answer: OutgoingAnswer) -> bool | None:
        """Return whether an API answered that the token is not valid; None if the body must be read first."""
        ...


class UserToken(Provider):
    """The access token of one user at one app. The broker makes it, from the `subject` of `Connections`.

    Attributes:
        app: The app.
        app_name: Its name in `Connections`.
        connect_url: Where the user connects the account.
    """

    __slots__ = (
        "allow_http",
        "allow_private",
        "app",
        "app_name",
        "certificate",
        "connect_url",
        "dpop",
        "hosts",
        "refresh_before",
        "subject",
    )

    kind: ClassVar[str] = "connection"
    per_subject = True

    app: ConnectionApp
    app_name: str
    connect_url: str
    subject: str

    def __init__(self, app: ConnectionApp, *, app_name: str, subject: str, connect_url: str) -> None:
        self.app = app
        self.app_name = app_name
        self.subject = subject
        self.connect_url = connect_url
        self.hosts = app.hosts
        self.refresh_before = app.refresh_before
        self.allow_http = app.allow_http
        self.allow_private = app.allow_private
        # An app of the program's own class need not know them.
        self.certificate = getattr(app, "certificate", None)
        self.dpop = getattr(app, "dpop", None)

    def identity(self) -> tuple[object, ...]:
        """Return the app's name, its client and the user. A changed secret of the client makes no other connection.

        A token that is bound to another key is another token.
        """
        return (self.app_name, self.app.client_id, self.subject, *(() if self.dpop is None else self.dpop.identity()))

    async def fetch(self, http: TokenHTTP) -> Grant:
        """Return the connection's access token, refreshed if necessary.

        Raises:
            ReconnectRequired: The user has no connection, or one that can no longer be used.
            TokenUnavailable: It cannot be refreshed now.
            CredentialRejected: The server refuses the client.
        """
        return await http.grant(self)

    def authorize(self, request: OutgoingRequest, token: Token) -> None:
        """Put the token where the app's API expects it."""
        self.app.authorize(request, token)

    def is_rejected(self, answer: OutgoingAnswer) -> bool | None:
        """Return whether the app's API answered that the token is not valid; None if the body must be read first."""
        return self.app.is_rejected(answer)
