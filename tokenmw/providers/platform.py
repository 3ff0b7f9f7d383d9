"""What the bot platforms share: an app's id and secret, a base URL, and error codes in the body."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from tokenmw.errors import ConfigurationError
from tokenmw.options import credential_text, optional_seconds
from tokenmw.providers.base import OutgoingAnswer, Provider
from tokenmw.providers.client_secrets import ClientSecrets
from tokenmw.providers.proof import Proof, shown_option
from tokenmw.providers.urls import checked_base_url, checked_hosts, host_of
from tokenmw.values import MAX_LIFETIME, windows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tokenmw.providers.body_codes import RejectionCodes

__all__ = ["PlatformProvider"]


class PlatformProvider(Provider):
    """An app of a bot platform, in the platform's cloud or a private deployment.

    A subclass gives its options their own names in its `__init__`, and defines `kind`, `fetch` and the class attributes
    below.

    Attributes:
        base_url: The cloud or the deployment; API requests start with it.
    """

    __slots__ = ("_app_id", "_secrets", "allow_http", "base_url", "hosts", "refresh_before")

    kind = "platform"
    base_url: str
    _app_id: str
    _secrets: ClientSecrets
    _option_names: ClassVar[tuple[str, str]]
    """The names of the options for the id and the secret, for error texts."""
    _rejections: ClassVar[RejectionCodes]
    """How the platform's APIs report that a token is not valid."""

    def __init__(
        self,
        app_id: object,
        app_secret: object,
        *,
        base_url: str,
        hosts: Iterable[str] | None,
        allow_http: bool,
        refresh_before: float | None = None,
    ) -> None:
        name = type(self).__name__
        id_option, secret_option = (f"{name}({option}=…)" for option in self._option_names)
        self._app_id = credential_text(app_id, option=id_option)
        self._secrets = ClientSecrets(app_secret, option=secret_option)
        self.base_url = checked_base_url(base_url, option=f"{name}(base_url=…)", allow_http=allow_http)
        self.hosts = checked_hosts(hosts, option=f"{name}(hosts=…)") or frozenset({host_of(self.base_url)})
        self.allow_http = allow_http
        self.refresh_before = optional_seconds(refresh_before, option=f"{name}(refresh_before=…)")
        if refresh_before is not None and self.renewal_window is not None:
            used = windows(MAX_LIFETIME, renewal_window=self.renewal_window, refresh_before=self.refresh_before).refresh
            if used < refresh_before:
                raise ConfigurationError(
                    f"{name}(refresh_before=…) must be at most {used:g}: until {self.renewal_window:g} s before a "
                    f"token expires, the platform returns the same token again."
                )

    @property
    def shown(self) -> str:
        """The option with the app's id for an error text, such as `app_id=cli_a1`; its name if the id is unusual."""
        return shown_option(self._option_names[0], self._app_id, secrets=self._secrets.all)

    def repeats_secret(self, text: str) -> bool:
        """Return whether a short text repeats one of the app's secrets, or a piece of it."""
        return any(Proof(secret, form={}, headers={}).has_piece_in(text) for secret in self._secrets.all)

    def identity(self) -> tuple[object, ...]:
        """Return the deployment, the app and its secrets."""
        return (self.base_url, self._app_id, self._secrets.identity())

    def is_rejected(self, answer: OutgoingAnswer) -> bool | None:
        """Return whether an API answered that the token is not valid, by status and the code in the body."""
        return self._rejections.match(answer)
