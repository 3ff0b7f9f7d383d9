"""The authorization endpoint: a user consents, and the client gets a code by a redirect (RFC 6749 §4.1, RFC 9700)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from starlette.responses import Response

from tokenmw.testing.provider_server.codes import CHALLENGE
from tokenmw.testing.provider_server.consent_page import error_page, form_page
from tokenmw.testing.provider_server.endpoint import Endpoint

if TYPE_CHECKING:
    from starlette.requests import Request

    from tokenmw.testing.provider_server.endpoint import TokenEndpoint
    from tokenmw.testing.provider_server.fault import Fault
    from tokenmw.testing.provider_server.server import ProviderServer

__all__ = ["AuthorizationEndpoint"]

_PROMPTS = frozenset({"none", "login", "consent", "select_account"})


class AuthorizationEndpoint(Endpoint):
    """`GET /oauth2/authorize`, as strict as real servers; the form of its page posts to the same URL.

    A test changes any redirect by a fault: `Fault(fields={"state": "foreign"}, without=["iss"])`.

    Args:
        server: The server.
        tokens: The token endpoint that takes the codes.
    """

    name: ClassVar[str] = "authorize"
    path: ClassVar[str] = "/oauth2/authorize"
    more_paths: ClassVar[tuple[str, ...]] = ("/{issuer:path}/oauth2/authorize",)
    methods = ("GET", "POST")

    client_field: ClassVar[str] = "client_id"
    """The parameter that has the client."""
    code_field: ClassVar[str] = "code"
    """The parameter of the redirect that has the code."""
    scope_field: ClassVar[str] = "scope"
    """The parameter that has the scope."""
    scope_separator: ClassVar[str] = " "
    """What is between two scopes."""
    needs_response_type: ClassVar[bool] = True
    """Whether `response_type` must be there."""
    pkce: ClassVar[Literal["required", "optional", "none"]] = "required"
    """Whether a `code_challenge` is required, as long as `server.users.requires_pkce` is set; "none": not read."""
    has_iss: ClassVar[bool] = True
    """Whether the platform sends `iss` (RFC 9207)."""

    def __init__(self, server: ProviderServer, tokens: TokenEndpoint) -> None:
        super().__init__(server)
        self._tokens = tokens

    async def caller(self, request: Request) -> str:
        """Return the client id."""
        return request.query_params.get(self.client_field, "")

    async def answer(self, request: Request, fault: Fault) -> Response:
        """Answer with a page, or with a redirect that has a code or an error code."""
        pairs = parse_qsl(request.url.query, keep_blank_values=True)
        asked = dict(pairs) if self.needs_response_type else {"response_type": "code", **dict(pairs)}
        if request.method == "GET":
            self.server.users.requests.append(dict(pairs))
        client, redirect_uri = asked.get(self.client_field, ""), asked.get("redirect_uri", "")
        # Without a registered URI there is nowhere to redirect to.
        if not self.server.knows(client, None):
            return error_page(f"The client {client!r} is not known.")
        if redirect_uri not in self.server.users.redirect_uris.get(client, ()):
            return error_page(f"The redirect_uri {redirect_uri!r} is not registered for {client!r}.")
        problem = self.server.users.denies or asked.get("denies", "") or self._problem(pairs, asked)
        user = await self._user(request, asked)
        if not problem and user is None:
            return form_page(client=client, scope=self._scope(asked), user=asked.get("login_hint", ""))
        if problem or not user:
            return self._redirect(request, asked, {"error": problem or "access_denied"}, fault)
        return self._redirect(request, asked, {self.code_field: self._code(request, asked, user)}, fault)

    async def _user(self, request: Request, asked: dict[str, str]) -> str | None:
        """Return the user who consents, "" for a refusal, and None before anyone was asked."""
        if request.method == "POST":
            form = dict(parse_qsl((await request.body()).decode("latin-1")))
            return form.get("user", "") if form.get("decision") == "allow" else ""
        return self.server.users.auto or asked.get("auto") or None

    def issuer(self, request: Request) -> str:
        """Return the issuer whose endpoint a request has reached."""
        base, path = self.server.oauth2_metadata.base(request), request.path_params.get("issuer", "")
        return f"{base}/{path}" if path else base

    def _problem(self, pairs: list[tuple[str, str]], asked: dict[str, str]) -> str:
        names = [name for name, _ in pairs if name != "resource"]
        prompts, users = asked.get("prompt", "").split(), self.server.users
        known = users.scopes is None or set(self._scope(asked).split()) <= users.scopes
        silent = "none" in prompts and not users.auto and "auto" not in asked
        checks = {
            "invalid_request": (
                len(set(names)) == len(names)
                and "response_type" in asked
                and asked.get("response_mode", "query") == "query"
                and set(prompts) <= _PROMPTS
                and ("none" not in prompts or len(prompts) == 1)
                and self._has_good_challenge(asked)
            ),
            "unsupported_response_type": asked.get("response_type") == "code",
            "request_not_supported": "request" not in asked,
            "request_uri_not_supported": "request_uri" not in asked,
            "invalid_scope": known,
            "login_required": not silent,
        }
        return next((code for code, good in checks.items() if not good), "")

    def _has_good_challenge(self, asked: dict[str, str]) -> bool:
        """Return whether the challenge is one of S256 (RFC 7636 §4.3), or is missing where it is not required."""
        if self.pkce == "none":
            return True
        if "code_challenge" not in asked:
            required = self.server.users.requires_pkce and self.pkce == "required"
            return not required and "code_challenge_method" not in asked
        # Without a method it would be `plain`, which shows the verifier.
        return asked.get("code_challenge_method") == "S256" and bool(CHALLENGE.fullmatch(asked["code_challenge"]))

    def _scope(self, asked: dict[str, str]) -> str:
        """Return the requested scopes, with spaces between them."""
        return " ".join(filter(None, asked.get(self.scope_field, "").split(self.scope_separator)))

    def _code(self, request: Request, asked: dict[str, str], user: str) -> str:
        users = self.server.users
        scope = " ".join(one for one in self._scope(asked).split() if one not in users.refused_scopes)
        code = users.codes.issue(
            self._tokens.prefix,
            user,
            asked[self.client_field],
            redirect_uri=asked["redirect_uri"],
            scope=scope,
            challenge=asked.get("code_challenge", "") if self.pkce != "none" else "",
            nonce=asked.get("nonce", ""),
            issuer=self.issuer(request),
        )
        return code.value

    def _redirect(self, request: Request, asked: dict[str, str], answer: dict[str, str], fault: Fault) -> Response:
        iss = self.server.users.iss
        content = answer | ({"state": asked["state"]} if "state" in asked else {})
        if self.has_iss and iss is not None:
            content["iss"] = iss or self.issuer(request)
        parts = urlsplit(asked["redirect_uri"])
        added = urlencode(fault.change(content))
        url = urlunsplit(parts._replace(query=f"{parts.query}&{added}" if parts.query else added))
        # After a form 303, so that the browser does not post the user's name to the client (RFC 9700 §4.12).
        status = 303 if request.method == "POST" else 302
        headers = {"Location": url, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
        return Response(status_code=status, headers=headers)
