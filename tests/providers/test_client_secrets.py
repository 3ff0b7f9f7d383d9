"""A client with two secrets: while its secret is changed, the provider's refusal of one costs a request, no more."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.providers.platforms import CLIENT, PLATFORMS, Platform
from tests.servers import RedisServer
from tokenmw import ConfigurationError, CredentialRejected, Grant, Limits, TokenBroker, TokenUnavailable
from tokenmw.providers import BotFramework, ClientCredentials, Entra, FeishuStoreApp, Provider, WeCom, construction
from tokenmw.providers.client_secrets import ClientSecrets
from tokenmw.testing import Fault, ManualClock, ProviderServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

OLD, NEW = "old s3cr3t & more/ä=%", "new s3cr3t & more/ö=%"
BASE = "https://idp.example"
TENANT = "contoso.example"


class Server(ProviderServer):
    """A provider that accepts any of several secrets of its client."""

    accepted: frozenset[str] = frozenset({OLD})

    def knows(self, client: str, secret: str | None) -> bool:
        """Return whether it accepts this secret of the client."""
        return client == CLIENT and (secret is None or secret in self.accepted)


def oauth(secret: Any, **options: Any) -> Provider:
    """Make a client of the OAuth 2.0 endpoint, as a process of its own does: nothing is known of its secrets."""
    construction._checked.clear()
    return ClientCredentials(token_url=f"{BASE}/oauth2/token", client_id=CLIENT, client_secret=secret, **options)


def of_platform(platform: Platform, secret: Any) -> Provider:
    """Make an app of a bot platform."""
    return platform.make(BASE, **{platform.secret: secret})


MAKERS: dict[str, Callable[[Any], Provider]] = {
    "oauth2": oauth,
    "oauth2 post": lambda secret: oauth(secret, auth_method="client_secret_post"),
    "entra": lambda secret: Entra(tenant=TENANT, client_id=CLIENT, client_secret=secret, base_url=BASE),
    "bot": lambda secret: BotFramework(app_id=CLIENT, app_secret=secret, tenant=TENANT, base_url=BASE),
    **{platform.name: partial(of_platform, platform) for platform in PLATFORMS},
}


@asynccontextmanager
async def brokers(
    server: Server, providers: Sequence[Provider], *, redis: str | None = None
) -> AsyncGenerator[list[TokenBroker]]:
    """Open one broker for each provider, as instances of one fleet."""
    clock = ManualClock()
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx.AsyncClient(transport=server.transport()))
        opened: list[TokenBroker] = []
        for provider in providers:
            time: dict[str, Any] = {} if redis else {"clock": clock}
            broker = TokenBroker(
                {"crm": provider}, http=http, redis=redis, secret_key="a secret for the tests only", **time
            )
            opened.append(await stack.enter_async_context(broker))
        yield opened


def requests_of(server: Server) -> int:
    """Return the number of token requests that the server has got."""
    return sum(count for name, count in server.calls.items() if isinstance(name, str))


@pytest.mark.parametrize("kind", MAKERS)
async def test_a_refused_secret_costs_one_request_and_the_accepted_one_is_remembered(kind: str) -> None:
    """Before, at and after the provider's own change, each token request succeeds."""
    server = Server()
    async with brokers(server, [MAKERS[kind]([NEW, OLD])]) as [broker]:
        for accepted, requests in (({OLD}, 2), ({OLD}, 1), ({OLD, NEW}, 1), ({NEW}, 2), ({NEW}, 1)):
            server.accepted = frozenset(accepted)
            before = requests_of(server)
            await broker.invalidate_provider("crm")
            assert (await broker.token("crm")).value
            assert requests == requests_of(server) - before


@pytest.mark.parametrize("kind", MAKERS)
async def test_if_all_secrets_are_refused_each_is_sent_once(kind: str) -> None:
    """Platforms ban for failing calls. The error says that it is about all of them, and shows none."""
    server = Server()
    server.accepted = frozenset()
    async with brokers(server, [MAKERS[kind]([NEW, OLD])]) as [broker]:
        for _ in range(10):
            with pytest.raises(CredentialRejected, match="its other secrets are refused too") as caught:
                await broker.token("crm")
            assert "s3cr3t" not in f"{caught.value}{caught.value!r}{caught.value.detail}{broker.status()}"
            assert caught.value.__context__ is None
        assert 2 == requests_of(server)


@pytest.mark.parametrize("error", ["invalid_scope", "invalid_request", "unsupported_grant_type"])
async def test_a_rejection_that_is_not_about_the_secret_causes_one_request(error: str) -> None:
    """Another secret would get the same answer."""
    server = Server()
    server.oauth2.script.then(Fault(status=400, body={"error": error}))
    async with brokers(server, [oauth([NEW, OLD])]) as [broker]:
        with pytest.raises(CredentialRejected):
            await broker.token("crm")
        assert 1 == requests_of(server)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_the_credential_is_the_set_of_secrets(make: Callable[[Any], Provider]) -> None:
    """A list of one is that secret, as before; of several, their order does not matter."""
    assert make(OLD) == make([OLD]) == make((OLD,))
    assert make(OLD).credential == make([OLD]).credential
    assert make([NEW, OLD]) == make([OLD, NEW])
    assert make([NEW, OLD]) not in {make(OLD), make(NEW)}


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ([], "has 0 secrets"),
        ([*"abcde"], "has 5 secrets"),
        ([OLD, OLD], "twice"),
        ([OLD, None], "must be a str"),
        ([OLD, ""], "is empty"),
        ([OLD, b"new"], "must be a str"),
        ({OLD: NEW}, "must be a str"),
    ],
)
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_wrong_list_is_refused(make: Callable[[Any], Provider], given: Any, match: str) -> None:
    """The error names the option and shows no secret."""
    with pytest.raises(ConfigurationError, match=match) as caught:
        make(given)
    assert "_secret=…" in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


def test_a_store_app_has_one_secret() -> None:
    """Its ticket and its app token belong to that secret, so a list is refused."""
    with pytest.raises(ConfigurationError, match=r"app_secret=…\) must be a str"):
        FeishuStoreApp(app_id="cli", app_secret=[NEW, OLD])  # type: ignore[arg-type]


def test_no_repr_shows_a_secret() -> None:
    """Nor does one of the parts of the credential."""
    secrets = ClientSecrets([NEW, OLD], option="X(secret=…)")
    provider = WeCom(corp_id="ww", corp_secret=[NEW, OLD])
    assert "s3cr3t" not in f"{secrets!r} {secrets.all!r} {secrets.given!r} {provider.credential!r} {provider!r}"


Step = tuple[str, "list[Any]", "set[str]"]

ROTATION: list[Step] = [
    ("all have the old secret", [OLD, OLD, OLD], {OLD}),
    ("the first gets both", [[NEW, OLD], OLD, OLD], {OLD}),
    ("the second gets both", [[NEW, OLD], [NEW, OLD], OLD], {OLD}),
    ("all have both", [[NEW, OLD], [NEW, OLD], [NEW, OLD]], {OLD}),
    ("the provider changes, without a time in which it accepts both", [[NEW, OLD]] * 3, {NEW}),
    ("the first has the new secret", [NEW, [NEW, OLD], [NEW, OLD]], {NEW}),
    ("the second has the new secret", [NEW, NEW, [NEW, OLD]], {NEW}),
    ("all have the new secret", [NEW, NEW, NEW], {NEW}),
]


@pytest.mark.parametrize(("secrets", "accepted"), [step[1:] for step in ROTATION], ids=[step[0] for step in ROTATION])
async def test_no_step_of_a_rotation_refuses_a_request(
    redis_server: RedisServer, secrets: list[Any], accepted: set[str]
) -> None:
    """In each step each instance gets a token, and instances with the same secrets share one fetch."""
    server = Server()
    server.accepted = frozenset(accepted)
    async with brokers(server, [oauth(secret) for secret in secrets], redis=redis_server.url) as fleet:
        for broker in (*fleet, *fleet):
            assert (await broker.token("crm")).value
    groups = {str(secret): secret for secret in secrets}.values()
    refused = sum(isinstance(secret, list) and NEW not in accepted for secret in groups)
    assert len(groups) + refused == requests_of(server)


@pytest.mark.parametrize("wrong_first", [False, True])
@pytest.mark.parametrize(
    ("secrets", "accepted", "served"),
    [
        pytest.param([OLD, NEW], {OLD}, 0, id="the middle step is skipped, before the provider's change"),
        pytest.param([OLD, NEW], {NEW}, 1, id="the middle step is skipped, after it"),
        pytest.param([OLD, [NEW, OLD]], {NEW}, 1, id="the provider changed before all have both"),
        pytest.param([NEW, [NEW, OLD]], {OLD}, 1, id="the new secret alone before the provider's change"),
    ],
)
async def test_a_skipped_step_does_not_stop_the_instances_that_are_right(
    redis_server: RedisServer,
    secrets: list[Any],
    accepted: set[str],
    served: int,
    *,
    wrong_first: bool,
) -> None:
    """The failure note of an instance with the refused secret is not theirs, nor is its backoff."""
    server = Server()
    server.accepted = frozenset(accepted)
    async with brokers(server, [oauth(secret) for secret in secrets], redis=redis_server.url) as fleet:
        right, wrong = fleet[served], fleet[1 - served]
        for broker in (wrong, right) if wrong_first else (right, wrong):
            if broker is right:
                assert (await broker.token("crm")).value
            else:
                with pytest.raises(CredentialRejected):
                    await broker.token("crm")
        await right.invalidate_provider("crm")
        assert (await right.token("crm")).value


class SlowProvider:
    """Answers requests in the order that a test chooses: a secret is accepted if it is so when the request arrives."""

    def __init__(self, *accepted: str) -> None:
        self.accepted = set(accepted)
        self.sent: list[str] = []
        self._waiting: list[asyncio.Future[None]] = []

    async def request(self, secret: str) -> Grant:
        """Wait for `answer`, and return what was true before."""
        self.sent.append(secret)
        accepted = secret in self.accepted
        self._waiting.append(asyncio.get_running_loop().create_future())
        await self._waiting[-1]
        if not accepted:
            raise CredentialRejected("refused", code="invalid_client", said=True)
        return Grant("token", expires_in=60)

    async def answer(self, number: int) -> None:
        """Answer the request of this number."""
        self._waiting[number].set_result(None)
        for _ in range(5):
            await asyncio.sleep(0)

    async def begin(self, secrets: ClientSecrets) -> asyncio.Task[Grant]:
        """Begin a token request, as one of several event loops that share a provider does."""
        task = asyncio.get_running_loop().create_task(secrets.grant(self.request, codes=frozenset({"invalid_client"})))
        await asyncio.sleep(0)
        return task


async def test_a_late_answer_does_not_replace_what_is_known_since() -> None:
    """The provider accepted the old secret when that request arrived, and has been changed before it answered."""
    secrets, provider = ClientSecrets([OLD, NEW], option="X(secret=…)"), SlowProvider(OLD)
    late = await provider.begin(secrets)
    provider.accepted = {NEW}
    quick = await provider.begin(secrets)
    await provider.answer(1)
    await provider.answer(2)
    await provider.answer(0)
    assert "token" == (await late).value == (await quick).value
    assert NEW == secrets.given


async def test_a_secret_that_was_accepted_meanwhile_is_tried_next() -> None:
    """Of two requests at the same time, the second one does not send what the first one has found out to be refused."""
    secrets, provider = ClientSecrets(["a", "b", "c"], option="X(secret=…)"), SlowProvider("c")
    first, second = await provider.begin(secrets), await provider.begin(secrets)
    for number in (0, 2, 3, 1, 4):
        await provider.answer(number)
    assert ["a", "a", "b", "c", "c"] == provider.sent
    assert "token" == (await first).value == (await second).value


async def test_the_next_fetch_begins_with_the_secret_that_had_no_time_left() -> None:
    """If a refused secret and the next one take longer than `fetch_seconds` together, only the first fetch fails."""
    server = Server(delay=0.6)
    limits = Limits(fetch_seconds=1.0, backoff_seconds=0.1)
    async with (
        httpx.AsyncClient(transport=server.transport()) as http,
        TokenBroker({"crm": oauth([NEW, OLD])}, http=http, single_process=True, limits=limits) as broker,
    ):
        with pytest.raises(TokenUnavailable):
            await broker.token("crm")
        await asyncio.sleep(0.1)
        assert (await broker.token("crm")).value
