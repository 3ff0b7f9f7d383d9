"""A model of several processes and one user's connection, in which each step waits until a test lets it go on."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

from tests.connections.world import SECRET, documents_of
from tokenmw import Limits, TokenUnavailable
from tokenmw.connections import StoredConnection, StoreUnavailable, TokenPair
from tokenmw.connections.data import ConnectionData
from tokenmw.connections.document import ConnectionDocument
from tokenmw.connections.ended import EndedConnections
from tokenmw.connections.exchanges import Exchanges
from tokenmw.connections.pair import GrantRefused
from tokenmw.connections.pair_storage import PairStorage
from tokenmw.connections.refresh import ConnectionRefresher
from tokenmw.connections.user_token import UserToken
from tokenmw.observe.throttle import ThrottledLog
from tokenmw.testing import ManualClock
from tokenmw.tokens.cache import RejectedTokens

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from tokenmw.connections import ConnectionKey
    from tokenmw.values import Grant

__all__ = ["LIFETIME", "LIMITS", "Model", "Step"]

LIMITS = Limits()
LIFETIME = 60.0

Outcome = Literal["done", "lost", "reply lost"]


@dataclass(eq=False)
class Step:
    """One step of a process, which waits.

    Attributes:
        process: The process.
        name: `load`, `save`, `answer of load`, `answer of save`, `post` or `answer of post`.
        go: What it waits for: what becomes of it.
    """

    process: Process
    name: str
    go: asyncio.Future[Outcome]


@dataclass(eq=False)
class Post:
    """One request at the server."""

    token: str
    process: Process
    at: float
    delivered: bool = False


@dataclass(eq=False)
class Model:
    """The server, the store, Redis and the processes.

    Attributes:
        clock: The time of all.
        steps: The steps that wait.
        posts: All requests with refresh tokens.
        refresh_token: The one that is not spent.
        alive: Whether the family was not revoked.
        excused: Whether an answer was lost with its process, or came too late: the one case that is named.
    """

    clock: ManualClock = field(default_factory=ManualClock)
    steps: list[Step] = field(default_factory=list["Step"])
    posts: list[Post] = field(default_factory=list[Post])
    rows: dict[ConnectionKey, StoredConnection] = field(default_factory=dict["ConnectionKey", StoredConnection])
    kept: dict[str, bytes] = field(default_factory=dict[str, bytes])
    processes: list[Process] = field(default_factory=list["Process"])
    refresh_token: str = "R0"
    access_tokens: list[str] = field(default_factory=lambda: ["A0"])
    alive: bool = True
    excused: bool = False

    def connect(self) -> None:
        """Store the connection, with an access token that was just granted."""
        documents = documents_of(None)
        key, now = documents.key("crm", "user-1"), self.clock.time()
        document = ConnectionDocument(
            refresh_token="R0",
            access_token="A0",
            expires_at=now + LIFETIME,
            lifetime=LIFETIME,
            granted_at=now,
            refreshed_at=now,
        )
        self.rows[key] = StoredConnection(1, documents.sealed(key, document, version=1))

    def start(self) -> Process:
        """Start a process."""
        process = Process(self)
        self.processes.append(process)
        return process

    def post(self, process: Process, token: str) -> tuple[Post, TokenPair | None]:
        """Spend a refresh token. Return None in place of a pair if it was spent before, which revokes the family."""
        post = Post(token, process, self.clock.monotonic())
        self.posts.append(post)
        if not self.alive or token != self.refresh_token:
            self.alive = False
            return post, None
        number = len(self.access_tokens)
        self.refresh_token = f"R{number}"
        self.access_tokens.append(f"A{number}")
        return post, TokenPair(access_token=f"A{number}", refresh_token=f"R{number}", expires_in=LIFETIME)

    def sent_twice(self) -> list[str]:
        """Return the refresh tokens that were sent more than once."""
        return [token for token, count in Counter(post.token for post in self.posts).items() if count > 1]

    # The store of all processes; each has its own steps.


class Process:
    """One process: what it remembers, and its tasks."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.tasks: list[asyncio.Task[Grant]] = []
        self.dead = False
        self._sent_at = 0.0
        clock, log = model.clock, ThrottledLog(model.clock)
        documents = documents_of(self, secrets=(SECRET,))
        data = ConnectionData(LIMITS)
        storage = PairStorage(documents=documents, kept=self, data=data, clock=clock, log=log)
        self.storage = storage
        self.exchanges = Exchanges(limit=10)
        self.refresher = ConnectionRefresher(
            documents=documents,
            storage=storage,
            ended=EndedConnections(documents, data=data, seconds=LIMITS.claim_seconds, clock=clock),
            exchanges=self.exchanges,
            data=data,
            rejected=RejectedTokens(limits=LIMITS, clock=clock),
            limits=LIMITS,
            clock=clock,
            log=log,
            observe=lambda _event: None,
            writer="process",
        )
        self._provider = UserToken(cast("Any", self), app_name="crm", subject="user-1", connect_url="")
        self._may_send: Callable[[], bool] | None = None

    def ask(self) -> None:
        """Begin to ask for the token."""
        coroutine: Coroutine[Any, Any, Grant] = self.refresher.grant(self._provider, cast("Any", self))
        task = asyncio.ensure_future(coroutine)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.tasks.append(task)

    def kill(self) -> None:
        """End the process: nothing of it runs on, and nothing that it remembers is left."""
        self.dead = True
        for post in self.model.posts:
            if post.process is self and not post.delivered:
                self.model.excused = True
        self.model.steps = [step for step in self.model.steps if step.process is not self]
        for task in asyncio.all_tasks():
            if task in self.tasks or task in {exchange.task for exchange in self.exchanges._running}:
                task.cancel()

    async def _step(self, name: str) -> Outcome:
        step = Step(self, name, asyncio.get_running_loop().create_future())
        self.model.steps.append(step)
        return await step.go

    # What a `ConnectionStore` does.

    async def load(self, key: ConnectionKey) -> StoredConnection | None:
        """Return a value as it is at one moment; the reply arrives later."""
        if await self._step("load") != "done":
            raise StoreUnavailable("lost")
        found = self.model.rows.get(key)
        await self._step("answer of load")
        return found

    async def save(self, key: ConnectionKey, value: bytes, *, expected: int) -> bool:
        """Store a value at one moment; the reply arrives later, or is lost."""
        outcome = await self._step("save")
        if outcome == "lost":
            raise StoreUnavailable("lost")
        present = self.model.rows.get(key)
        saved = (0 if present is None else present.version) == expected
        if saved:
            self.model.rows[key] = StoredConnection(expected + 1, value)
        if outcome == "reply lost" or await self._step("answer of save") != "done":
            raise StoreUnavailable("reply lost")
        return saved

    # What `Kept` does, without delay.

    async def keep(self, digest: str, value: bytes) -> bool:
        """Keep a value."""
        self.model.kept[digest] = value
        return True

    async def find(self, digest: str) -> bytes | None:
        """Find a value."""
        return self.model.kept.get(digest)

    async def forget(self, digest: str, value: bytes) -> None:
        """Forget a value."""
        if self.model.kept.get(digest) == value:
            del self.model.kept[digest]

    # What an app does, and its `TokenHTTP`.

    client_id = "crm"
    scope = ""
    hosts = None
    refresh_before = None
    allow_http = False
    allow_private = True

    def with_seconds(self, _seconds: float, *, may_send: Callable[[], bool]) -> Process:
        """Remember the check that precedes a request."""
        self._may_send = may_send
        return self

    async def refresh(self, _http: Any, refresh_token: str, *, scope: str = "") -> TokenPair:
        """Send a refresh token, unless it is too late."""
        del scope
        began = self.model.clock.monotonic()
        await self._step("post")
        if self._may_send is not None and not self._may_send():
            raise TokenUnavailable("not sent")
        if self.model.clock.monotonic() - began > LIMITS.exchange_seconds:
            raise TokenUnavailable("the time is over, before it was sent")
        post, pair = self.model.post(self, refresh_token)
        await self._step("answer of post")
        if self.model.clock.monotonic() - began > LIMITS.exchange_seconds:
            self.model.excused = True
            raise TokenUnavailable("the answer came too late")
        post.delivered = True
        if pair is None:
            raise GrantRefused("spent", code="invalid_grant")
        return pair

    async def revoke(self, _http: Any, _token: str, *, hint: str) -> None:
        """Do nothing."""
