"""The token on outgoing requests: `auth` is the object, `placing` and `judging` are its two halves."""

from __future__ import annotations

from tokenmw.outgoing.auth import TokenAuth, token_auth

__all__ = ["TokenAuth", "token_auth"]
