"""When a certificate is valid, read from its DER (RFC 5280 §4.1.2.5), which the `ssl` module does not tell."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

__all__ = ["validity_of"]

_SEQUENCE: Final = 0x30
_INTEGER: Final = 0x02
_UTC_TIME: Final = 0x17
_GENERALIZED_TIME: Final = 0x18
_VERSION: Final = 0xA0
_LONG_FORM: Final = 0x80  # of a length
_FIRST_OF_1900: Final = 50  # a UTCTime's two digits of the year: 50 is 1950, 49 is 2049


def validity_of(der: bytes) -> tuple[float, float]:
    """Return the times from and until which a certificate is valid, in seconds since 1970.

    Raises:
        ValueError: The bytes are not those of a certificate.
    """
    certificate = _read(der, 0, _SEQUENCE)[0]
    signed = _read(certificate, 0, _SEQUENCE)[0]
    position = 0
    if signed[:1] == bytes([_VERSION]):
        position = _read(signed, position, _VERSION)[1]
    for kind in (_INTEGER, _SEQUENCE, _SEQUENCE):  # serial number, algorithm, issuer
        position = _read(signed, position, kind)[1]
    validity = _read(signed, position, _SEQUENCE)[0]
    begins, position = _time(validity, 0)
    return begins, _time(validity, position)[0]


def _read(data: bytes, position: int, kind: int) -> tuple[bytes, int]:
    """Return the content of the element at a position, and the position after it."""
    if data[position : position + 1] != bytes([kind]) or position + 2 > len(data):
        raise ValueError("not a certificate")
    length, begin = data[position + 1], position + 2
    if length >= _LONG_FORM:
        digits = length - _LONG_FORM
        length, begin = int.from_bytes(data[begin : begin + digits], "big"), begin + digits
    content = data[begin : begin + length]
    if len(content) < length:
        raise ValueError("not a whole certificate")
    return content, begin + length


def _time(data: bytes, position: int) -> tuple[float, int]:
    kind = data[position] if position < len(data) else 0
    if kind not in (_UTC_TIME, _GENERALIZED_TIME):
        raise ValueError("not a certificate")
    content, after = _read(data, position, kind)
    text = content.decode("ascii")
    if kind == _UTC_TIME:
        text = f"{19 if int(text[:2]) >= _FIRST_OF_1900 else 20}{text}"
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp(), after
