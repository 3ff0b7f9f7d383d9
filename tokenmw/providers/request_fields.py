"""The fields of a token request: the grant, what the token is for, and what a server needs beyond the standard."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, cast
from urllib.parse import urlsplit

from tokenmw.errors import ConfigurationError
from tokenmw.options import checked_flag, credential_text
from tokenmw.redaction import FrozenValue, HiddenStr

if TYPE_CHECKING:
    from tokenmw.providers.proof import Proof

__all__ = ["GrantType", "RequestFields", "checked_fields", "checked_resource", "checked_scope"]

GrantType = Literal["client_credentials", "account_credentials"]

_MAX_FIELDS: Final = 32
_MAX_RESOURCES: Final = 16
# A field of each name is sent by the package itself, and the option is where its value belongs.
_OPTIONS: Final = {
    "audience": "audience=…",
    "client_assertion": "client_assertion=…",
    "client_assertion_type": 'auth_method="private_key_jwt"',
    "client_id": "client_id=…",
    "client_secret": "client_secret=…",
    "grant_type": "grant_type=…",
    "resource": "resource=…",
    "scope": "scope=…",
}
_NAME: Final = re.compile(r"[!-~]{1,100}")
_SECRET_NAME: Final = re.compile("secret|passw|pwd|token|assertion|key|credential", re.IGNORECASE)
# Entra's v1.0 endpoint takes an application's id, without `urn:uuid:` before it.
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_ABSOLUTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+")  # RFC 3986 §4.3


class RequestFields(FrozenValue):
    """The fields of a token request, without those of the client authentication.

    Args:
        provider: The provider's class name, for error texts.
        scope: The scopes, separated by spaces, or "".
        audience: The API that the token is for, or None.
        resource: One or several APIs that the token is for (RFC 8707), or None.
        params: More fields, which the program chooses, or None.
        as_json: Whether the fields are sent as a JSON object instead of a form.
        grant_type: The grant's name.
        own: More fields of the grant. A list or tuple is sent as several fields of one name.
        options: The provider's options for the grant's own fields, by the name of the field: `params` cannot have them.
            "" for a field of another grant for which this provider has no option: `params` can have it.

    Raises:
        ConfigurationError: An option is malformed, or `params` has a field that an option sets.
    """

    __slots__ = ("_as_json", "_fields", "_more", "_scopes", "secrets")

    _as_json: bool
    _fields: Mapping[str, str | tuple[str, ...]]
    _more: tuple[object, ...]
    _scopes: tuple[str, ...]
    secrets: tuple[str, ...]
    """The values of `params` whose names look like those of secrets."""

    def __init__(
        self,
        *,
        provider: str,
        grant_type: str,
        scope: str = "",
        audience: str | None = None,
        resource: str | Sequence[str] | None = None,
        params: Mapping[str, str] | None = None,
        as_json: bool = False,
        own: Mapping[str, str | Sequence[str]] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        checked_scope(scope, provider=provider)
        if audience is not None:
            credential_text(audience, option=f"{provider}(audience=…)")
        checked_flag(as_json, option=f"{provider}(json=…)")
        resources = _checked_resources(resource, option=f"{provider}(resource=…)")
        reserved = {
            name: given and f"which an option sets: use {given}"
            for name, given in (_OPTIONS | dict(options or {})).items()
        }
        more = checked_fields(params, option=f"{provider}(params=…)", example={"account_id": "…"}, reserved=reserved)
        fields: dict[str, str | tuple[str, ...]] = {"grant_type": grant_type}
        standard = {"scope": scope.strip(), "audience": audience, "resource": resources}
        fields |= {name: value for name, value in standard.items() if value}
        fields |= {name: _one_or_several(value) for name, value in (own or {}).items() if value}
        put = object.__setattr__
        put(self, "_as_json", as_json)
        put(self, "_fields", fields | more)
        put(self, "_scopes", tuple(sorted(set(scope.split()))))
        put(self, "secrets", tuple(value for name, value in more.items() if _SECRET_NAME.search(name)))
        # Only what is not at its default, so that a credential without these options keeps the name that it has had.
        chosen = {"params": tuple(sorted(more.items())), "json": as_json}
        put(self, "_more", tuple((name, value) for name, value in chosen.items() if value))

    def identity(self) -> tuple[object, ...]:
        """Return what makes the token of these fields differ from another one: the part that every credential has."""
        return (self._scopes, self._fields.get("audience"), self._fields.get("resource"))

    def more_identity(self) -> tuple[object, ...]:
        """Return the part of the identity that only credentials with `params` or `json` have."""
        return self._more

    def body(self, proof: Proof, more: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return the body of a request, as an argument of `TokenHTTP.request`.

        Args:
            proof: The client authentication.
            more: Fields of this one request.
        """
        return {"json" if self._as_json else "data": {**self._fields, **(more or {}), **proof.form}}

    def __repr__(self) -> str:
        return f"<RequestFields {len(self._fields)}>"


def _one_or_several(value: str | Sequence[str]) -> str | tuple[str, ...]:
    # In JSON, a list with one item is not that item.
    return value if isinstance(value, str) else tuple(value) if len(value) > 1 else value[0]


def checked_fields(
    fields: object, *, option: str, example: Mapping[str, str], reserved: Mapping[str, str]
) -> dict[str, str]:
    """Return the fields that a program adds to a request.

    Args:
        fields: What the program gave; None for no fields.
        option: The option, for error texts.
        example: Fields that are usual there, for error texts.
        reserved: What an error text says of a name that is refused, such as "which an option sets: use scope=…"; ""
            allows it.

    Raises:
        ConfigurationError: It is no dict of text to text, or has a reserved name.
    """
    if fields is None:
        return {}
    if not isinstance(fields, Mapping):
        raise ConfigurationError(
            f"{option} must be a dict of fields, such as {json.dumps(example, ensure_ascii=False)}, not "
            f"{type(fields).__name__}."
        )
    given = dict(cast("Mapping[object, object]", fields))
    if len(given) > _MAX_FIELDS:
        raise ConfigurationError(f"{option} has {len(given)} fields: at most {_MAX_FIELDS} are sent.")
    checked: dict[str, str] = {}
    for name, value in given.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"{option}: the name of a field must be text of 1 to 100 visible ASCII characters, such as "
                f"{next(iter(example))}."
            )
        if reserved.get(name):
            raise ConfigurationError(f"{option} has the field {name}, {reserved[name]}.")
        checked[name] = HiddenStr(credential_text(value, option=f"{option}: the field {name}"))
    return checked


def _checked_resources(resource: object, *, option: str) -> str | tuple[str, ...] | None:
    if resource is None:
        return None
    listed: tuple[object, ...] = (resource,)
    if isinstance(resource, (list, tuple)):
        listed = tuple(cast("Sequence[object]", resource))
    if not 0 < len(listed) <= _MAX_RESOURCES or len(set(map(str, listed))) < len(listed):
        raise ConfigurationError(
            f"{option} must be one resource, or a list of 2 to {_MAX_RESOURCES} different ones, not {len(listed)}."
        )
    checked = tuple(checked_resource(one, option=option) for one in listed)
    return checked if len(listed) > 1 else "".join(checked)


def checked_scope(scope: object, *, provider: str) -> str:
    """Return scopes without blanks before and after them.

    Raises:
        ConfigurationError: They are no text.
    """
    if isinstance(scope, (list, tuple, set, frozenset)):
        raise ConfigurationError(f"{provider}(scope=…) must be one str, with spaces between the scopes, not a list.")
    return credential_text(scope, option=f"{provider}(scope=…)", empty=True).strip()


def checked_resource(resource: object, *, option: str) -> str:
    """Return the URI of an API (RFC 8707 §2, RFC 8693 §2.1).

    Raises:
        ConfigurationError: It is no absolute URI, or has a fragment.
    """
    text = credential_text(resource, option=option)
    if "#" in text:
        raise ConfigurationError(f"{option} has a fragment (#…), which RFC 8707 §2 forbids: remove it.")
    if _UUID.fullmatch(text) or (_ABSOLUTE.fullmatch(text) and _has_host(text)):
        return text
    raise ConfigurationError(
        f'{option} must be an absolute URI, such as "https://api.example" (RFC 8707 §2); where the server wants '
        f"another name of the API, use audience=… or scope=…."
    )


def _has_host(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
    except ValueError:
        return False
    return parts.scheme not in ("http", "https") or bool(parts.netloc)
