"""ProviderServer issues codes to browsers, and tokens for codes, as strict as RFC 9700 wants it."""

from __future__ import annotations

import base64
import hashlib
import sys
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest

from tests.testing.conftest import CRM
from tokenmw.errors import ConfigurationError
from tokenmw.testing import Fault, ManualClock, ProviderServer

CALLBACK = "https://app.test/connect/crm/callback"
VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")
ASKED = {
    "response_type": "code",
    "client_id": "crm",
    "redirect_uri": CALLBACK,
    "scope": "read write",
    "state": "a state",
    "code_challenge": CHALLENGE,
    "code_challenge_method": "S256",
}


@pytest.fixture(autouse=True)
def _registered(server: ProviderServer) -> None:
    server.users.register("crm", CALLBACK)
    server.users.auto = "ada"


async def authorize(client: Any, path: str = "/oauth2/authorize", **asked: Any) -> Any:
    """Send an authorization request; a parameter that is None is left out."""
    parameters = {name: value for name, value in (ASKED | asked).items() if value is not None}
    return await client.get(path, params=parameters, follow_redirects=False)


def redirected(answer: Any) -> dict[str, str]:
    """Return the parameters of a redirect to the client."""
    assert answer.status_code in (302, 303)
    location = str(answer.headers["location"])
    assert location.startswith(CALLBACK + "?")
    return {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}


async def code_of(client: Any, **asked: Any) -> str:
    """Return the code that a request gets."""
    return redirected(await authorize(client, **asked))["code"]


async def exchange(client: Any, code: str, **form: str) -> Any:
    """Send a code to the token endpoint."""
    fields = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK, "code_verifier": VERIFIER}
    return await client.post("/oauth2/token", data=fields | CRM | form)


async def test_a_code_is_exchanged_for_a_pair(server: ProviderServer, client: Any) -> None:
    """The redirect has the state and the issuer (RFC 9207), and the tokens are the user's."""
    answer = redirected(await authorize(client, prompt="consent", access_type="offline"))
    base = str(client.base_url).rstrip("/")
    assert {"state": "a state", "iss": base} == {name: answer[name] for name in answer if name != "code"}
    granted = await exchange(client, answer["code"])
    fields = granted.json()
    assert (200, "no-store") == (granted.status_code, granted.headers["cache-control"])
    assert {"token_type": "Bearer", "expires_in": 3600, "scope": "read write"}.items() <= fields.items()
    assert "id_token" not in fields
    family = server.users.family_of(fields["refresh_token"])
    assert ("ada", "crm", "read write", base) == (family.user, family.client, family.scope, family.issuer)
    assert [ASKED | {"prompt": "consent", "access_type": "offline"}] == server.users.requests
    assert [(answer["code"], "granted", family)] == [
        (post.credential, post.outcome, post.family) for post in server.users.posts
    ]
    assert {"authorize": 1, ("authorize", "crm"): 1}.items() <= server.calls.items()


@pytest.mark.parametrize(
    "asked",
    [
        {"client_id": "unknown"},
        {"client_id": None},
        {"redirect_uri": None},
        {"redirect_uri": CALLBACK + "/"},
        {"redirect_uri": CALLBACK + "?next=x"},
        {"redirect_uri": "https://app.test/connect/crm/"},
        {"redirect_uri": "https://APP.test/connect/crm/callback"},
        {"redirect_uri": "https://evil.test/<script>"},
    ],
)
async def test_a_foreign_redirect_uri_gets_no_redirect(client: Any, asked: dict[str, Any]) -> None:
    """It must be a registered one, character by character; the answer is a page (RFC 6749 §4.1.2.1)."""
    answer = await authorize(client, **asked)
    assert (400, "text/html; charset=utf-8") == (answer.status_code, answer.headers["content-type"])
    assert "location" not in answer.headers
    assert "<script>" not in answer.text


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"response_type": None}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"code_challenge": None, "code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge": CHALLENGE + "="}, "invalid_request"),
        ({"scope": ["read", "write"]}, "invalid_request"),
        ({"scope": "read admin"}, "invalid_scope"),
        ({"prompt": "none login"}, "invalid_request"),
        ({"prompt": "yes"}, "invalid_request"),
        ({"request": "e30.e30."}, "request_not_supported"),
        ({"request_uri": "https://app.test/request"}, "request_uri_not_supported"),
        ({"denies": "access_denied"}, "access_denied"),
    ],
)
async def test_invalid_requests_are_redirected_with_an_error(
    server: ProviderServer, client: Any, asked: dict[str, Any], error: str
) -> None:
    """With the state and the issuer, and without a code."""
    server.users.scopes = {"read", "write"}
    answer = redirected(await authorize(client, **asked))
    assert {"error": error, "state": "a state", "iss": str(client.base_url).rstrip("/")} == answer


async def test_every_request_can_be_denied(server: ProviderServer, client: Any) -> None:
    """As by a user who clicks on Deny, or by a server that is overloaded."""
    for code in ("access_denied", "temporarily_unavailable"):
        server.users.denies = code
        assert code == redirected(await authorize(client))["error"]


async def test_no_user_can_be_asked_silently(server: ProviderServer, client: Any) -> None:
    """`prompt=none` never shows a page (OpenID Connect Core §3.1.2.1)."""
    server.users.auto = None
    assert "login_required" == redirected(await authorize(client, prompt="none"))["error"]
    assert "code" in redirected(await authorize(client, prompt="none", auto="bob"))


async def test_a_request_can_name_the_user(server: ProviderServer, client: Any) -> None:
    """So that one test has several users."""
    server.users.auto = None
    for user in ("ada", "bob"):
        fields = (await exchange(client, await code_of(client, auto=user))).json()
        assert user == server.users.family_of(fields["refresh_token"]).user


async def test_a_second_use_of_a_code_revokes_its_tokens(server: ProviderServer, client: Any) -> None:
    """Access tokens and refresh tokens, those of later refreshes too (RFC 6749 §4.1.2)."""
    code = await code_of(client)
    fields = (await exchange(client, code)).json()
    family = server.users.family_of(fields["refresh_token"])
    again = await exchange(client, code)
    assert (400, "invalid_grant") == (again.status_code, again.json()["error"])
    assert (False, "code") == (family.alive, family.revoked_because)
    headers = {"authorization": f"Bearer {fields['access_token']}"}
    assert 401 == (await client.get("/api/me", headers=headers)).status_code
    assert ["granted", "reused"] == [post.outcome for post in server.users.posts]


@pytest.mark.parametrize(
    ("form", "outcome"),
    [
        ({"code": "never-issued"}, "unknown"),
        ({"code": ""}, "missing"),
        ({"redirect_uri": CALLBACK + "/"}, "redirect_uri"),
        ({"redirect_uri": ""}, "redirect_uri"),
        ({"code_verifier": "w" * 43}, "verifier"),
        ({"code_verifier": ""}, "verifier"),
        ({"code_verifier": CHALLENGE}, "verifier"),
        ({"client_id": "other"}, "client"),
    ],
)
async def test_a_code_is_bound_to_its_request(
    server: ProviderServer, client: Any, form: dict[str, str], outcome: str
) -> None:
    """To the client, the redirect URI and the verifier; a refused attempt does not use it up."""
    server.clients = {"crm": "s", "other": "s"}
    code = await code_of(client)
    answer = await exchange(client, **({"code": code} | form))
    assert (400, "invalid_request" if outcome == "missing" else "invalid_grant") == (
        answer.status_code,
        answer.json()["error"],
    )
    assert [outcome] == [post.outcome for post in server.users.posts]
    assert 200 == (await exchange(client, code)).status_code


async def test_a_code_expires(server: ProviderServer, clock: ManualClock, client: Any) -> None:
    """After 60 seconds."""
    codes = [await code_of(client) for _ in range(2)]
    clock.advance(59)
    assert 200 == (await exchange(client, codes[0])).status_code
    clock.advance(1)
    assert "invalid_grant" == (await exchange(client, codes[1])).json()["error"]
    assert "expired" == server.users.posts[-1].outcome


async def test_pkce_can_be_optional(server: ProviderServer, client: Any) -> None:
    """A verifier without a challenge is refused all the same: that is a downgrade (RFC 9700 §4.8.2)."""
    server.users.requires_pkce = False
    code = await code_of(client, code_challenge=None, code_challenge_method=None)
    assert 400 == (await exchange(client, code)).status_code
    assert 200 == (await exchange(client, code, code_verifier="")).status_code


async def test_scopes_can_be_refused(server: ProviderServer, client: Any) -> None:
    """The token response says what is left (RFC 6749 §5.1)."""
    server.users.refused_scopes = {"write"}
    fields = (await exchange(client, await code_of(client))).json()
    assert "read" == fields["scope"]
    assert "read" == server.users.family_of(fields["refresh_token"]).scope


@pytest.mark.parametrize(("iss", "sent"), [(None, None), ("https://evil.test", "https://evil.test")])
async def test_the_issuer_in_the_redirect_can_be_foreign_or_missing(
    server: ProviderServer, client: Any, iss: str | None, sent: str | None
) -> None:
    """As in a mix-up attack, and as of a server that does not know RFC 9207."""
    server.users.iss = iss
    assert sent == redirected(await authorize(client)).get("iss")
    document = (await client.get("/.well-known/oauth-authorization-server")).json()
    assert (iss is not None) is document["authorization_response_iss_parameter_supported"]


async def test_a_fault_changes_the_redirect(server: ProviderServer, client: Any) -> None:
    """Any parameter can be replaced or left out; other faults replace the whole answer."""
    server.authorize.script.then(Fault(fields={"state": "foreign"}, without=["iss"]), Fault(status=503))
    answer = redirected(await authorize(client))
    assert ({"code", "state"}, "foreign") == (set(answer), answer["state"])
    assert 503 == (await authorize(client)).status_code


async def test_each_issuer_has_an_endpoint(client: Any) -> None:
    """The document of an issuer with a path names it, and the redirect has that issuer."""
    document = (await client.get("/.well-known/oauth-authorization-server/realms/one")).json()
    assert {"response_types_supported": ["code"], "code_challenge_methods_supported": ["S256"]}.items() <= (
        document.items()
    )
    assert {"authorization_code", "refresh_token", "client_credentials"} <= set(document["grant_types_supported"])
    answer = redirected(await authorize(client, document["authorization_endpoint"]))
    assert document["issuer"] == answer["iss"]
    assert document["issuer"].endswith("/realms/one")


async def test_a_redirect_uri_keeps_its_query(server: ProviderServer, client: Any) -> None:
    """Parameters of the registered URI stay (RFC 6749 §3.1.2)."""
    server.users.register("crm", CALLBACK + "?tenant=a%20b")
    answer = await authorize(client, redirect_uri=CALLBACK + "?tenant=a%20b", state=None)
    assert answer.headers["location"].startswith(CALLBACK + "?tenant=a%20b&code=")
    assert "state" not in answer.headers["location"]


@pytest.mark.parametrize("algorithm", ["HS256", "RS256"])
async def test_id_tokens_are_signed(server: ProviderServer, client: Any, algorithm: str) -> None:
    """With `openid` in the scope there is one, with the nonce; that of a refresh has none."""
    server.users.id_token_algorithm = algorithm
    secret = "a secret of 32 bytes at the least"
    server.clients = {"crm": secret}
    keys = (await client.get("/oauth2/jwks")).json()["keys"]
    assert (algorithm == "RS256") is bool(keys)
    key: Any = jwt.PyJWK(keys[0]).key if keys else secret
    base = str(client.base_url).rstrip("/")

    def claims(token: str) -> dict[str, Any]:
        options: Any = {"verify_exp": False, "verify_iat": False}  # the server has a clock of its own
        decoded: dict[str, Any] = jwt.decode(token, key, [algorithm], audience="crm", issuer=base, options=options)
        return decoded

    code = await code_of(client, scope="openid read", nonce="a nonce")
    first = (await exchange(client, code, client_secret=secret)).json()
    form = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
    second = (await client.post("/oauth2/token", data=form | CRM | {"client_secret": secret})).json()
    assert {"sub": "ada", "nonce": "a nonce"}.items() <= claims(first["id_token"]).items()
    assert 3600 == claims(first["id_token"])["exp"] - claims(first["id_token"])["iat"]
    assert ("ada", None) == (claims(second["id_token"])["sub"], claims(second["id_token"]).get("nonce"))


async def test_id_tokens_name_what_is_missing(server: ProviderServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """RS256 needs an extra, and there are two algorithms."""
    pair = server.users.grant("ada", client="crm", scope="openid")
    with pytest.raises(ConfigurationError, match="HS256 and RS256"):
        server.users.id_tokens.issue(pair, algorithm="none", secret="s", issuer="https://idp.test")
    monkeypatch.setitem(sys.modules, "jwt.algorithms", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'tokenmw\[jwt\]'"):
        server.users.id_tokens.keys()


async def test_a_browser_gets_a_form(server: ProviderServer, client: Any) -> None:
    """The user signs in and allows or denies; a repeated form, as by the back button, gets a code of its own."""
    server.users.auto = None
    page = await authorize(client, login_hint='"><script>', scope="<b>")
    assert (200, "DENY") == (page.status_code, page.headers["x-frame-options"])
    assert 'value="&quot;&gt;&lt;script&gt;"' in page.text
    assert "<b>crm</b> asks for: <i>&lt;b&gt;</i>" in page.text
    posted = [
        await client.post(str(page.request.url), data={"user": "eve", "decision": decision})
        for decision in ("allow", "allow", "deny")
    ]
    assert [303, 303, 303] == [answer.status_code for answer in posted]
    first, second, third = map(redirected, posted)
    assert "access_denied" == third["error"]
    assert first["code"] != second["code"]
    fields = (await exchange(client, first["code"])).json()
    assert "eve" == server.users.family_of(fields["refresh_token"]).user
    assert 1 == len(server.users.requests)
