"""What a token request sends to authenticate its client, and whether a text repeats a part of it."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, quote_plus

from tokenmw.redaction import FrozenValue

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Proof", "shown_option"]

_MIN_OVERLAP: Final = 6  # characters; a shorter piece may be in a text by chance
_PIECE: Final = 8  # characters of a secret that no prose may repeat
_LONG: Final = 1024  # characters; searching each piece of an assertion of 64 KiB would take 0.1 s
_LONG_STEP: Final = 16
_PLAIN_ID: Final = re.compile(r"[A-Za-z0-9._:@/+-]{1,80}", re.ASCII)
_URL_SAFE: Final = str.maketrans("+/", "-_")


class Proof(FrozenValue):
    """The client authentication of one token request.

    Attributes:
        form: Fields of the form.
        headers: Header lines.
    """

    __slots__ = ("_secrets", "_sent", "form", "headers")

    form: Mapping[str, str]
    headers: Mapping[str, str]
    _secrets: tuple[str, ...]
    _sent: tuple[str, ...]

    def __init__(self, secret: str, *, form: Mapping[str, str], headers: Mapping[str, str]) -> None:
        put = object.__setattr__
        encoded = [line.removeprefix("Basic ") for line in headers.values()]
        put(self, "_sent", (secret, quote(secret, safe=""), quote_plus(secret), *encoded))
        put(self, "_secrets", (secret,) if secret else ())
        put(self, "form", form)
        put(self, "headers", headers)

    def is_in(self, text: str) -> bool:
        """Return whether a text repeats the secret or assertion that was sent, or a piece of it, encoded or not."""
        return any(_overlap(sent, text) for sent in self._sent)

    def has_piece_in(self, text: str) -> bool:
        """Return whether a text repeats eight characters of what was sent, in any case, encoded or in base64.

        A shorter secret counts as a whole. Of one of more than 1024 characters, such as an assertion, 23 in a row are
        found, and no base64. For error texts, of some hundred characters.
        """
        if self.is_in(text):
            return True
        text = text.lower()
        short = (secret.encode("utf-8", "replace") for secret in self._secrets if len(secret) <= _LONG)
        encoded = [form for secret in short for form in _in_base64(secret)]
        forms = {form.lower() for form in (*self._sent, *encoded) if form}
        return any(_shares_piece(form, text) for form in forms)

    def with_secret(self, secret: str) -> Proof:
        """Return the same proof, for a request that sends another secret as well."""
        other = Proof(secret, form=self.form, headers={})
        object.__setattr__(other, "headers", self.headers)
        object.__setattr__(other, "_sent", (*self._sent, *other._sent))
        object.__setattr__(other, "_secrets", (*self._secrets, *other._secrets))
        return other

    def __repr__(self) -> str:
        return "<Proof>"


def _shares_piece(form: str, text: str) -> bool:
    step = 1 if len(form) <= _LONG else _LONG_STEP
    return any(form[begin : begin + _PIECE] in text for begin in range(0, max(1, len(form) - _PIECE + 1), step))


def _in_base64(secret: bytes) -> list[str]:
    # The text depends on how many bytes stand before the secret, modulo three. What other bytes decide is cut off.
    forms: list[str] = []
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + secret).decode().rstrip("=")
        known = encoded[0 if before == 0 else before + 1 : (before + len(secret)) * 8 // 6]
        forms += [known, known.translate(_URL_SAFE)]
    return [form for form in forms if form]


def shown_option(option: str, value: str, *, secrets: Iterable[str]) -> str:
    """Return an option with its value for an error text, `client_id=crm`; only its name if the value is unusual."""
    repeats = any(Proof(secret, form={}, headers={}).is_in(value) for secret in secrets)
    return f"{option}={value}" if _PLAIN_ID.fullmatch(value) and not repeats else option


def _overlap(one: str, other: str) -> bool:
    shorter, longer = sorted((one, other), key=len)
    return one == other or (len(shorter) >= _MIN_OVERLAP and shorter in longer)
