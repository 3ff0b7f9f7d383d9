"""A token in a URL: it is in no log line or error text, and no redirect carries it on."""

from __future__ import annotations

import base64
import importlib
import logging
import re
import time
import types
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from tests.outgoing.conftest import API, Numbered
from tokenmw import Grant, Token, TokenBroker
from tokenmw.outgoing.url_tokens import forms_of, repeats
from tokenmw.providers import TokenHTTP
from tokenmw.providers.base import OutgoingRequest

TOKEN = "a+B/c-D_1234567890=="
LIBRARIES = [importlib.import_module(name) for name in ("httpx", "httpx2")]


class Secret(Numbered):
    """A provider of one long token, in the query or in the path."""

    __slots__ = ()
    kind = "secret"

    def __init__(self, place: str = "query") -> None:
        super().__init__(place=place)

    async def fetch(self, http: TokenHTTP) -> Grant:
        return Grant(TOKEN, expires_in=3600)

    def authorize(self, request: OutgoingRequest, token: Token) -> None:
        if self.place == "query":
            super().authorize(request, token)
        else:
            request.url = request.url.copy_with(path=f"/bot{token.value}{request.url.path}")


def twice(text: str) -> str:
    """Return text as it is in a URL that is in the query of a URL that is in the query of another one."""
    return quote(quote(text, safe=""), safe="")


INSIDE = f"https://api.example/x?access_token={quote(TOKEN, safe='')}"
LOCATIONS = {
    "query": f"?again={TOKEN}",
    "encoded query": f"?again={quote(TOKEN, safe='')}",
    "lower case escapes": f"?again={quote(TOKEN, safe='').replace('%2F', '%2f')}",
    "every byte encoded": "?again=" + "".join(f"%{ord(one):02x}" for one in TOKEN),
    "a form": f"?again={TOKEN.replace('+', '%20')}",
    "a quoted URL": f"?next={quote(INSIDE, safe='')}",
    "a URL quoted twice": f"?next={twice(INSIDE)}",
    "a URL quoted nine times": "?next=" + "%2525252525252525" * 3,
    "base64": "?state=" + base64.b64encode(f'{{"url": "{TOKEN}"}}'.encode()).decode(),
    "base64 for URLs": "?state=" + base64.urlsafe_b64encode(f'{{"u": "{TOKEN}"}}'.encode()).decode().rstrip("="),
    "path": f"/{quote(TOKEN)}/y",
    "fragment": f"y#access_token={TOKEN}",
}


@pytest.mark.parametrize("location", LOCATIONS.values(), ids=LOCATIONS)
@pytest.mark.parametrize("target", ["foreign", "own"])
async def test_redirect_that_repeats_the_token_is_neither_sent_nor_logged(
    broker: TokenBroker,
    http: Any,
    *,
    api: API,
    foreign: API,
    foreign_url: str,
    library: Any,
    caplog: pytest.LogCaptureFixture,
    location: str,
    target: str,
) -> None:
    """The redirect is refused before its request is sent, wherever and however its URL has the token."""
    caplog.set_level(logging.DEBUG)
    base = foreign_url if target == "foreign" else str(http.base_url).rstrip("/")
    api.accept = lambda request: Response(status_code=302, headers={"location": f"{base}/{location}"})
    with pytest.raises(library.RemoteProtocolError, match="repeats the token") as caught:
        await http.get("/x?a=1", auth=broker.auth(Secret()))
    assert ([TOKEN], []) == (api.seen, foreign.seen)
    assert not repeats(caplog.text + str(caught.value), forms_of(TOKEN))
    assert "/x" == caught.value.request.url.path


@pytest.mark.parametrize("where", ["userinfo", "host"])
async def test_redirect_with_the_token_before_its_path_is_neither_sent_nor_logged(
    broker: TokenBroker, http: Any, *, api: API, library: Any, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    """Not even the name of a host with the token in it is looked up."""
    caplog.set_level(logging.DEBUG)
    place = quote(TOKEN, safe="")
    location = {"userinfo": f"http://user:{place}@localhost:1/", "host": f"http://{place}.localhost:1/"}[where]
    api.accept = lambda request: Response(status_code=302, headers={"location": location})
    with pytest.raises(library.RemoteProtocolError, match="repeats the token") as caught:
        await http.get("/x", auth=broker.auth(Secret()))
    assert [TOKEN] == api.seen
    assert not repeats(caplog.text + str(caught.value), forms_of(TOKEN))


async def test_invalid_redirect_is_not_quoted(broker: TokenBroker, http: Any, api: API, library: Any) -> None:
    """The client's error about an invalid URL quotes the part that is invalid; ours does not."""
    api.accept = lambda request: Response(status_code=302, headers={"location": "http://localhost:t-1/"})
    with pytest.raises(library.RemoteProtocolError, match="repeats the token") as caught:
        await http.get("/x", auth=broker.auth(Numbered(place="query")))
    assert "t-1" not in str(caught.value)


async def test_later_redirect_that_repeats_the_token_is_not_followed(
    broker: TokenBroker, http: Any, *, api: API, foreign: API, foreign_url: str, library: Any
) -> None:
    """A redirect without the token is followed; a server that remembers the token cannot send it elsewhere later."""

    def accept(request: Request) -> Response:
        return RedirectResponse("/y" if request.url.path == "/x" else f"{foreign_url}/?next={twice(INSIDE)}")

    api.accept = accept
    with pytest.raises(library.RemoteProtocolError, match="repeats the token"):
        await http.get("/x", auth=broker.auth(Secret()))
    assert ([TOKEN, ""], []) == (api.seen, foreign.seen)


async def test_same_path_on_another_port_is_not_the_first_request(
    broker: TokenBroker, http: Any, *, api: API, foreign: API, foreign_url: str, library: Any
) -> None:
    """A redirect that changes the port alone is refused, because its URL has the token."""
    other_port = foreign_url.replace("localhost", "127.0.0.1")
    api.accept = lambda request: RedirectResponse(f"{other_port}{request.url.path}?{request.url.query}", 307)
    with pytest.raises(library.RemoteProtocolError, match="repeats the token"):
        await http.get("/x", auth=broker.auth(Numbered(place="query")))
    assert ([], ["t-1"]) == (foreign.seen, api.seen)


@pytest.mark.parametrize("location", ["https://other.example/?state=1", "/y"])
async def test_redirects_over_a_transport_that_cannot_check_them_are_refused(
    broker: TokenBroker, library: Any, *, location: str
) -> None:
    """Without the `trace` extension nothing sees the next URL, so the answer is an error that names the fix."""
    seen: list[Any] = []

    def answer(request: Any) -> Any:
        seen.append(request)
        return library.Response(302, headers={"location": location})

    provider = Numbered(place="query", hosts=None)
    async with library.AsyncClient(transport=library.MockTransport(answer), follow_redirects=True) as http:
        with pytest.raises(library.RemoteProtocolError, match="use httpx's own transport") as caught:
            await http.get("https://api.example/x", auth=broker.auth(provider))
        assert (1, "t-1") == (len(seen), seen[0].url.params["access_token"])
        assert "t-1" not in str(caught.value) + str(caught.value.request.url)
        # A token in a header is not in the URL, and is not copied.
        header = broker.auth(Numbered("b", place="header", hosts=None))
        assert 302 == (await http.get("https://api.example/x", auth=header, follow_redirects=False)).status_code


async def test_asgi_transport_gets_the_token(broker: TokenBroker, library: Any, api: API) -> None:
    """A program's tests may call its application directly."""
    async with library.AsyncClient(transport=library.ASGITransport(api), base_url="https://127.0.0.1") as http:
        assert {"token": "t-1"} == (await http.get("/x", auth=broker.auth(Numbered(place="query")))).json()


def transport_in(module: str) -> Any:
    """Return a transport in a module of that name, which sends the text of the URL, as httpx-aiohttp's does."""
    code = "def answer(request):\n    sent.append(str(request.url))\n    return Response(200, json={})\n"
    made: Any = types.ModuleType(module)
    made.sent, made.Response = [], importlib.import_module("httpx").Response
    exec(compile(code, module, "exec"), made.__dict__)
    return made


@pytest.mark.parametrize(
    ("module", "sent"),
    [
        ("httpx_aiohttp.transport", "https://127.0.0.1/x?id=5&access_token=t-1"),
        ("of_the_program", "https://127.0.0.1/x?id=5"),
    ],
)
async def test_transport_that_sends_the_text_of_the_url(
    broker: TokenBroker, caplog: pytest.LogCaptureFixture, *, module: str, sent: str
) -> None:
    """httpx-aiohttp sends the whole URL. An unknown transport sends all of it but the token. The log never has it."""
    caplog.set_level(logging.DEBUG)
    httpx, made = LIBRARIES[0], transport_in(module)
    async with httpx.AsyncClient(transport=httpx.MockTransport(made.answer)) as http:
        await http.get("https://127.0.0.1/x?id=5", auth=broker.auth(Numbered(place="query")))
    assert [sent] == made.sent
    assert "https://127.0.0.1/x?id=5" in caplog.text
    assert "t-1" not in caplog.text


@pytest.mark.parametrize(("place", "shown"), [("query", "/x?a=1&b=2"), ("path", "/")])
async def test_url_is_written_without_the_token(
    broker: TokenBroker, http: Any, api: API, *, caplog: pytest.LogCaptureFixture, place: str, shown: str
) -> None:
    """Log lines and errors have the program's own URL; of a URL with the token in its path they have the host."""
    caplog.set_level(logging.DEBUG)
    api.accept = lambda request: Response(status_code=500)
    answer = await http.get("/x?a=1&b=2", auth=broker.auth(Secret(place)))
    with pytest.raises(Exception, match="500") as caught:
        answer.raise_for_status()
    written = str(http.base_url).rstrip("/") + shown
    assert f"HTTP Request: GET {written} " in caplog.text
    assert f"'{written}'" in str(caught.value)
    texts = f"{caplog.text}{caught.value}{answer.request!r}{answer.url}{answer.url!r}{answer!r}"
    assert not repeats(texts, forms_of(TOKEN))


async def test_earlier_token_in_the_query_is_not_written(broker: TokenBroker, http: Any, api: API) -> None:
    """The parameter that the token replaces is not written either."""
    answer = await http.get("/x?access_token=older&a=1", auth=broker.auth(Numbered(place="query")))
    assert str(answer.url).endswith("/x?a=1")
    assert ["t-1"] == api.seen
    again = await http.send(answer.request)
    assert str(again.url).endswith("/x?a=1")


async def test_forward_proxy_gets_the_request(broker: TokenBroker, library: Any, base_url: str, api: API) -> None:
    """A request through a proxy has the whole URL as its target; it is not taken for a redirect."""
    auth = broker.auth(Numbered(place="query", hosts=None, allow_http=True))
    async with library.AsyncClient(proxy=base_url, trust_env=False) as http:
        for url in ("http://api.example/x?a=1", "http://api.example:8080/x"):
            await http.get(url, auth=auth)
    assert ["t-1", "t-1"] == api.seen


async def test_transport_may_send_the_request_twice(broker: TokenBroker, library: Any, base_url: str, api: API) -> None:
    """A transport that retries sends the same URL again; it is not taken for a redirect."""

    class Retrying(library.AsyncHTTPTransport):  # type: ignore[misc]
        async def handle_async_request(self, request: Any) -> Any:
            transport: Any = super()
            first = await transport.handle_async_request(request)
            await first.aclose()
            return await transport.handle_async_request(request)

    async with library.AsyncClient(transport=Retrying(), base_url=base_url) as http:
        await http.get("/x", auth=broker.auth(Numbered(place="query")))
    assert ["t-1", "t-1"] == api.seen


async def test_fragment_is_kept(broker: TokenBroker, http: Any, api: API) -> None:
    """A redirect that is followed keeps the fragment of the first URL, as the client does it."""
    api.accept = lambda request: (
        RedirectResponse("/y") if request.url.path == "/x" else JSONResponse({"path": request.url.path})
    )
    answer = await http.get(f"{http.base_url}/x#part", auth=broker.auth(Numbered(place="query")))
    assert ("/y", "part") == (answer.json()["path"], answer.url.fragment)


async def test_trace_of_the_program_is_still_called(broker: TokenBroker, http: Any) -> None:
    """The program's own `trace` extension gets every event."""
    events: list[str] = []

    async def trace(event: str, info: Any) -> None:
        events.append(event)

    await http.get("/x", auth=broker.auth(Numbered(place="query")), extensions={"trace": trace})
    assert any(event.endswith("send_request_headers.started") for event in events)


@pytest.mark.parametrize("text", ["%" * 64_000, "%25" * 21_000, "%252525" * 9_000, "%41" * 21_000])
def test_long_text_is_refused_in_time(text: str) -> None:
    """Decoding 64 KiB of percent signs would block the event loop for 60 ms."""
    begin = time.thread_time()  # processor time, so that other programs do not count
    assert repeats(text, forms_of(TOKEN))
    assert time.thread_time() - begin < 0.01


async def test_headers_full_of_percent_signs_are_not_logged(
    broker: TokenBroker, http: Any, api: API, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a response that would take long to check, the transport's log has the status only; the caller gets it all."""
    caplog.set_level(logging.DEBUG)
    api.accept = lambda request: Response(status_code=200, headers={"x-long": "%25" * 2_000, "x-other": "t-1"})
    answer = await http.get("/x", auth=broker.auth(Numbered(place="query")))
    assert "%25" * 2_000 == answer.headers["x-long"]
    assert "receive_response_headers.complete return_value=200" in caplog.text


VISIBLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=8, max_size=40)
PLAIN = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20)


@given(VISIBLE, PLAIN, PLAIN, st.lists(st.sampled_from([quote, quote_plus]), max_size=7), st.booleans())
def test_encoded_token_is_found(token: str, before: str, after: str, levels: list[Any], lower: bool) -> None:  # noqa: FBT001
    """A token is found within any text, percent-encoded up to seven times, or in base64."""
    text = before + token + after
    for level in levels:
        text = level(text, safe="")
    if lower:
        text = re.sub("%[0-9A-F]{2}", lambda escape: escape[0].lower(), text) if levels else text
    assert repeats(text, forms_of(token))
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        assert repeats(encode((before + token + after).encode()).decode(), forms_of(token))


@given(VISIBLE, PLAIN)
def test_text_without_the_token_is_not_refused(token: str, text: str) -> None:
    """A text of other characters never has the token."""
    letters = "".join(one for one in text if one.isalpha())
    assert not repeats(f"/{letters}", forms_of(f"0{token[:6]}0{token[6:]}"))
