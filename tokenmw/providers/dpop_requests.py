"""Token requests with a DPoP proof, and once more with the nonce that the server wants in it (RFC 9449 §5, §8)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from tokenmw.errors import TokenUnavailable
from tokenmw.providers.dpop import NONCE_REQUIRED

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from tokenmw.providers.answer import Answer
    from tokenmw.providers.dpop import DPoPKey
    from tokenmw.providers.http import TokenHTTP

__all__ = ["post_token_request", "with_nonce"]

R = TypeVar("R")

_REFUSED: Final = frozenset({400, 401})
_INVALID_PROOF: Final = "invalid_dpop_proof"


class _NonceRequired(Exception):
    """Raised for a token request that the server wants again, with the nonce that is known now."""

    def __init__(self, endpoint: str) -> None:
        super().__init__()
        self.endpoint = endpoint


async def post_token_request(
    http: TokenHTTP, url: str, *, dpop: DPoPKey, headers: Mapping[str, str], **body: Any
) -> Answer:
    """Send one token request with a proof of the key, and return the answer.

    Raises:
        TokenUnavailable: As `TokenHTTP.request` raises it, or the server does not accept the proof.
        _NonceRequired: The server wants a nonce; `with_nonce` repeats the request.
    """
    answer = await http.request("POST", url, headers={**headers, "dpop": dpop.proof("POST", url)}, **body)
    has_nonce = dpop.take_nonce(url, answer.headers, of_api=False)
    code = (answer.fields or {}).get("error") if answer.status in _REFUSED else None
    if code == NONCE_REQUIRED:
        if has_nonce:
            raise _NonceRequired(answer.endpoint)
        raise TokenUnavailable(
            f"{answer.endpoint} wants a nonce in the DPoP proof and sends none ({NONCE_REQUIRED}): check whether a "
            f"proxy removes the DPoP-Nonce header"
        )
    if code == _INVALID_PROOF:
        # Not `said`: it may be this machine's clock, and others have their own.
        raise TokenUnavailable(
            f"{answer.endpoint} does not accept the DPoP proof ({_INVALID_PROOF}, HTTP {answer.status}): check this "
            f"machine's clock, that the server accepts {dpop!r}, and that it knows its own URL behind a proxy"
        )
    return answer


async def with_nonce(grant: Callable[[], Awaitable[R]]) -> R:
    """Request a token, and once more if the server wants its nonce in the proof.

    Args:
        grant: Requests the token, with a new client authentication each time: servers refuse an assertion that they
            have seen.

    Raises:
        CredentialRejected: As `grant` raises it.
        TokenUnavailable: As `grant` raises it, or the server wants a nonce again.
    """
    endpoint = ""
    for _ in range(2):
        try:
            return await grant()
        except _NonceRequired as required:
            endpoint = required.endpoint
    raise TokenUnavailable(
        f"{endpoint} refuses the nonce in the DPoP proof that it has just sent ({NONCE_REQUIRED}): check whether "
        f"several servers answer there, each with nonces of its own"
    )
