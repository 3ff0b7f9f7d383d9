"""A browser without a screen for the pages of `oidc-provider`: it follows redirects, signs in and consents."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Self

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Browser"]

_ACTION = re.compile(r'<form[^>]* action="([^"]+)"')
_CANCEL = re.compile(r'href="([^"]+/abort)"')
_PROMPT = re.compile(r'name="prompt" value="(\w+)"')
_MAX_STEPS = 20


class Browser:
    """Two clients with cookies: one for the program's own site, one for the server.

    Args:
        app: The program, as an ASGI application.
        site: Its URL.
        user: The user of the program, who is signed in by the header `x-user`.
    """

    def __init__(self, app: Callable[..., Any], *, site: str, user: str) -> None:
        self._site = site
        self.own = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app), base_url=site, headers={"x-user": user, "accept": "text/html"}
        )
        self.server = httpx.AsyncClient(trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.own.aclose()
        await self.server.aclose()

    async def go(self, path: str, *, login: str = "ada", deny: bool = False) -> httpx.Response:
        """Open a page of the program, and go wherever it leads, until the program answers without a redirect.

        Args:
            path: The page.
            login: Who signs in at the server.
            deny: Whether the user cancels there.
        """
        answer = await self.own.get(path)
        for _ in range(_MAX_STEPS):
            if answer.status_code in (302, 303):
                url = str(answer.url.join(answer.headers["location"]))
                is_own = url.startswith(self._site)
                if is_own and "/callback" not in url and "/connect/" not in url:
                    return answer
                answer = await (self.own if is_own else self.server).get(url)
            elif str(answer.url).startswith(self._site):
                return answer
            else:
                answer = await self._fill(answer, login, deny=deny)
        raise AssertionError(f"no end after {_MAX_STEPS} pages")

    async def _fill(self, answer: httpx.Response, login: str, *, deny: bool) -> httpx.Response:
        prompt, action = _PROMPT.search(answer.text), _ACTION.search(answer.text)
        assert prompt is not None, answer.text
        assert action is not None, answer.text
        cancel = _CANCEL.search(answer.text)
        if deny:
            assert cancel is not None
            return await self.server.get(cancel[1])
        fields = {"prompt": prompt[1], "login": login, "password": "x"}
        return await self.server.post(action[1], data=fields)
