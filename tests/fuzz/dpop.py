"""DPoP: any answer of a token endpoint that wants a nonce, and any URL that a proof is made for."""

from __future__ import annotations

import functools
import json
from typing import Any

import httpx
import jwt

from tests.fuzz.messages import LIMITS, NOW, Message, read_message, run
from tests.fuzz.oracles import SECRET, Target, check_error, check_grant, check_request_error, require
from tests.providers.private_keys import make_key, pem_of
from tokenmw.errors import ConfigurationError, CredentialRejected, TokenUnavailable
from tokenmw.providers import ClientCredentials, DPoPKey, TokenHTTP
from tokenmw.testing import ManualClock

__all__ = ["TARGETS"]

_URL = "https://idp.example/token"
_MOST_REQUESTS = 2
_PEM = pem_of(make_key("P-256"))


class _Wire(httpx.AsyncBaseTransport):
    """Answers every request with one message, and keeps the proofs that were sent."""

    def __init__(self) -> None:
        self.message = Message(200, [], b"")
        self.proofs: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.proofs.append(request.headers["dpop"])
        status, headers, body = self.message
        return httpx.Response(status, headers=headers, content=body, request=request)


@functools.cache
def _wire() -> tuple[_Wire, TokenHTTP]:
    wire = _Wire()
    client = httpx.AsyncClient(transport=wire, trust_env=False)
    return wire, TokenHTTP(client, limits=LIMITS, clock=ManualClock(NOW))


def _claims(proof: str) -> dict[str, Any]:
    """Return what a proof says, as a server verifies it."""
    require(proof.isascii() and proof.isprintable() and " " not in proof, "a proof that is invalid in a header")
    header = jwt.get_unverified_header(proof)
    require(header["typ"] == "dpop+jwt" and "d" not in header["jwk"], "a proof with another type, or a private key")
    claims: dict[str, Any] = jwt.decode(proof, make_key("P-256").public_key(), algorithms=["ES256"])
    return claims


def _answer(data: bytes) -> None:
    wire, http = _wire()
    wire.message, wire.proofs = read_message(data), []
    key = DPoPKey(_PEM)
    crm = ClientCredentials(token_url=_URL, client_id="crm", client_secret=SECRET, dpop=key)
    try:
        grant = run(crm.fetch(http))
    except (CredentialRejected, TokenUnavailable) as error:
        check_request_error(error)
    else:
        check_grant(grant)
        require(grant.token_type == "DPoP", "a token that is not bound")
    require(len(wire.proofs) <= _MOST_REQUESTS, "a nonce that is asked for without an end")
    sent = [_claims(proof) for proof in (*wire.proofs, key.proof("POST", _URL))]
    require(len({claims["jti"] for claims in sent}) == len(sent), "a proof that was sent twice")
    given = {value.decode("latin-1") for name, value in wire.message.headers if name.lower() == b"dpop-nonce"}
    require("nonce" not in sent[0], "a nonce before one was received")
    require(all(claims.get("nonce") in {None, *given} for claims in sent), "a nonce that the server has not sent")


def _url(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    try:
        claims = _claims(DPoPKey(_PEM).proof("GET", text, token="t-1"))
    except ConfigurationError as error:
        check_error(error)
        return
    target = httpx.URL(text)
    named = httpx.URL(claims["htu"])
    require(not named.query and not named.fragment and not named.userinfo, "more than the URL of the request")
    require((named.scheme, named.raw_host) == (target.scheme, target.raw_host), "a proof for another server")
    require((named.path or "/") == (target.path or "/"), "a proof for another path")


def _message(status: int, fields: object, *lines: str) -> bytes:
    return "\n".join([str(status), *lines, "", json.dumps(fields)]).encode()


_GRANTED = {"access_token": "t-1", "token_type": "DPoP", "expires_in": 3600}
_WANTED = {"error": "use_dpop_nonce"}
_SEEDS = (
    _message(200, _GRANTED),
    _message(200, _GRANTED, "dpop-nonce: n-1"),
    _message(200, {**_GRANTED, "token_type": "Bearer"}),
    _message(400, _WANTED, "dpop-nonce: n-1"),
    _message(401, _WANTED, "DPoP-Nonce: n-1", "DPoP-Nonce: n-2"),
    _message(400, _WANTED),
    _message(400, _WANTED, 'dpop-nonce: a"b'),
    _message(400, _WANTED, "dpop-nonce: " + "n" * 2000),
    _message(400, _WANTED, "dpop-nonce: \u00e9"),
    _message(500, _WANTED, "dpop-nonce: n-1"),
    _message(400, {"error": "invalid_dpop_proof", "error_description": SECRET}, "dpop-nonce: n-1"),
    _message(400, {"error": ["use_dpop_nonce"]}, "dpop-nonce: n-1"),
)
_WORDS = (b"dpop-nonce: ", b'"use_dpop_nonce"', b'"invalid_dpop_proof"', b'"token_type": "DPoP"', b"400\n", b"401\n")
_URLS = (
    b"https://api.example/orders?a=1#b",
    b"HTTPS://API.example:443",
    b"https://user:password@api.example/",
    b"http://[::1]:8000/a%2fb",
    b"https://\xe4\xb8\xad\xe6\x96\x87.example/\xe4\xb8\xad",
    b"/orders",
    b"https://",
    b"//api.example/a",
    b"https:///a",
    b"http://[://[::1]:80/a%:443",
)
TARGETS = (
    Target("dpop.answer", _answer, _SEEDS, _WORDS, 1 << 16, (b"400\ndpop-nonce: ",)),
    Target("dpop.url", _url, _URLS, (b"https://", b"?", b"#", b"@", b"%", b":443", b"\\"), 1 << 13),
)
