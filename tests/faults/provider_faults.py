"""Faults of token servers, and what is promised of each.

Most faults are seen by two providers. The token of one is valid throughout, and due for a refresh during the fault. The
token of the other is invalidated when the fault begins, so that its requests need the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tests.faults.provider_campaign import DURING, LIFE, PROCESSES
from tokenmw.testing import Fault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Generator, Sequence

    from tests.faults.provider_campaign import Run

__all__ = ["FAULTS", "ProviderFault"]

SHORT_LIFE: Final = 4.0  # seconds; with a refresh every 3 s
OLD, NEW = "the old s3cret", "the new s3cret"


@dataclass(frozen=True)
class ProviderFault:
    """One fault, and what is promised while it lasts.

    Attributes:
        name: What happens.
        apply: Makes the fault, and returns when it is over.
        fetches: Requests of all processes that reach the server from the beginning of the fault until it is healed, at
            most.
        why: Why requests fail; "" if none does.
        refused: Seconds from the first to the last failed request, at most.
        healed: Seconds from the end of the fault until all processes get tokens again, at most.
        slowest: Seconds that a request takes, at most.
        margin: Seconds by which the server may answer later than its delay before that is another fault: its answer
            then misses the limit of a fetch.
        lines: Log lines of all processes, at most.
        cause: A regular expression that all failures and all lines of failures contain.
        served_once_deployed: Whether each process is served once it has new secrets.
        kept: Whether it is seen by a second provider, whose token is valid throughout.
        api: Whether each token is sent to an API.
        life: The lifetime of tokens in seconds.
        secrets: The client secrets that the processes have at first.
        accepted: The client secrets that the server accepts at first.
        limits: Limits of the brokers.
    """

    name: str
    apply: Callable[[Run], Awaitable[None]]
    fetches: int
    why: str = ""
    refused: float = 0.0
    healed: float = 0.5
    slowest: float = 1.0
    margin: float = float("inf")
    lines: int = 0
    cause: str = "$^"
    served_once_deployed: bool = False
    kept: bool = True
    api: bool = False
    life: float = LIFE
    secrets: Sequence[str] = (OLD,)
    accepted: Collection[str] = (OLD,)
    limits: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def namespace(self) -> str:
        """The namespace of its broker in Redis: one of its own if secrets are deployed, else one for all faults."""
        return f"fault-{FAULTS.index(self)}" if self.life == SHORT_LIFE else "faults"

    @property
    def names(self) -> list[str]:
        """The providers that see it; the last one loses its token."""
        name = f"fault-{FAULTS.index(self)}"
        return [f"{name}-kept", f"{name}-lost"] if self.kept else [f"{name}-lost"]


def _answers(fault: Fault) -> Callable[[Run], Awaitable[None]]:
    async def apply(run: Run) -> None:
        run.endpoint.script.always = fault
        await run.lose()
        await asyncio.sleep(DURING)
        run.endpoint.script.always = None

    return apply


async def _alternates(run: Run) -> None:
    run.endpoint.alternates = True
    await run.lose()
    await asyncio.sleep(DURING)
    run.endpoint.alternates = False


async def _refuses(run: Run) -> None:
    await run.proxy.refuse()
    run.proxy.cut()
    await run.lose()
    await asyncio.sleep(DURING)
    await run.proxy.listen()


async def _unreachable(run: Run) -> None:
    await run.proxy.refuse()
    run.proxy.cut()
    with _full_port(run.proxy.port):
        await run.lose()
        await asyncio.sleep(DURING)
    await run.proxy.listen()


@contextlib.contextmanager
def _full_port(port: int) -> Generator[None]:
    """Listen on a port whose queue of connections is full, so that a further one gets no answer."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.settimeout(0)
            waiting.connect_ex(server.getsockname())
        yield


def _shortens_lives(seconds: float) -> Callable[[Run], Awaitable[None]]:
    async def apply(run: Run) -> None:
        run.endpoint.life = seconds
        await run.lose()
        await asyncio.sleep(DURING)
        run.endpoint.life = LIFE

    return apply


async def _revokes(run: Run) -> None:
    run.revoke()


async def _revokes_twice(run: Run) -> None:
    run.revoke()
    await asyncio.sleep(1.0)
    run.revoke()


async def _rotation_begins(run: Run) -> None:
    await run.deploy(NEW, OLD, every=2.0)


async def _server_changes(run: Run) -> None:
    run.endpoint.accepted = (NEW,)
    await asyncio.sleep(DURING)


async def _rotation_ends(run: Run) -> None:
    await run.deploy(NEW, every=2.0)


async def _server_changes_too_early(run: Run) -> None:
    run.endpoint.accepted = (NEW,)
    await asyncio.sleep(SHORT_LIFE)
    await run.deploy(NEW, every=1.0)


async def _deployed_too_early(run: Run) -> None:
    await run.deploy(NEW, every=1.0)
    run.endpoint.accepted = (NEW,)


_LATE = "The server gives no token in time."
_NO_TOKEN = "The server gives no token."
_EACH_PROCESS = 2 * PROCESSES * 2  # the beginning and the end, for two providers
FAULTS: Final = (
    ProviderFault(
        name="answers after 4.9 s",
        apply=_answers(Fault(delay=4.9)),
        fetches=4,
        slowest=5.5,
        margin=0.02,
        healed=5.5,
    ),
    ProviderFault(
        name="answers after 5.5 s",
        apply=_answers(Fault(delay=5.5)),
        fetches=7,
        why=_LATE,
        refused=20.0,
        healed=10.0,
        slowest=12.5,
        lines=_EACH_PROCESS,
        cause=r"did not answer within 5 s \(read timeout\)",
    ),
    ProviderFault(
        name="every other answer is 503",
        apply=_alternates,
        fetches=4,
        why="The first answer is 503, and the next request is a second later.",
        refused=1.2,
        lines=_EACH_PROCESS,
        cause="HTTP 503",
    ),
    ProviderFault(
        name="answers 429",
        apply=_answers(Fault(status=429)),
        fetches=11,
        why=_NO_TOKEN,
        refused=16.0,
        healed=6.0,
        lines=_EACH_PROCESS,
        cause="HTTP 429",
    ),
    ProviderFault(
        name="answers 429, Retry-After: 4",
        apply=_answers(Fault(status=429, headers={"Retry-After": "4"})),
        fetches=7,
        why=_NO_TOKEN,
        refused=16.0,
        healed=6.0,
        lines=_EACH_PROCESS,
        cause="HTTP 429",
    ),
    ProviderFault(
        name="refuses connections for 10 s",
        apply=_refuses,
        fetches=2,
        why=_NO_TOKEN,
        refused=16.0,
        healed=6.0,
        lines=_EACH_PROCESS,
        cause=r"could not be reached \(refused\)",
    ),
    ProviderFault(
        name="unreachable for 10 s",
        apply=_unreachable,
        fetches=2,
        why=_NO_TOKEN,
        refused=20.0,
        healed=10.0,
        slowest=12.5,
        lines=_EACH_PROCESS,
        cause=r"could not be reached \(connect timeout\)",
    ),
    ProviderFault(
        name="tokens live 1 s",
        apply=_shortens_lives(1.0),
        fetches=15,
        kept=False,
    ),
    ProviderFault(
        name="tokens live 3 s",
        apply=_shortens_lives(3.0),
        fetches=6,
        kept=False,
    ),
    ProviderFault(
        name="all tokens are revoked",
        apply=_revokes,
        fetches=1,
        kept=False,
        api=True,
    ),
    ProviderFault(
        name="all tokens are revoked, and again 1 s later",
        apply=_revokes_twice,
        fetches=2,
        why="Reports of a token that is younger than 5 s are ignored.",
        refused=5.5,
        healed=5.5,
        cause="the API rejects the next token, too",
        kept=False,
        api=True,
    ),
    ProviderFault(
        name="rotation, step 1: [new, old] is deployed",
        apply=_rotation_begins,
        fetches=11,
        served_once_deployed=True,
        kept=False,
        life=SHORT_LIFE,
    ),
    ProviderFault(
        name="rotation, step 2: the server accepts only the new secret",
        apply=_server_changes,
        fetches=9,
        kept=False,
        life=SHORT_LIFE,
        secrets=(NEW, OLD),
    ),
    ProviderFault(
        name="rotation, step 3: [new] is deployed",
        apply=_rotation_ends,
        fetches=7,
        served_once_deployed=True,
        kept=False,
        life=SHORT_LIFE,
        secrets=(NEW, OLD),
        accepted=(NEW,),
    ),
    ProviderFault(
        name="rotation without step 1: the server accepts only the new secret, then [new] is deployed",
        apply=_server_changes_too_early,
        fetches=5,
        why="Processes with only the old secret are refused, from the expiry of their token to their deployment.",
        refused=8.5,
        lines=PROCESSES,  # each logs that it is refused, also where another process has found out
        cause="invalid_client",
        served_once_deployed=True,
        kept=False,
        life=SHORT_LIFE,
    ),
    ProviderFault(
        name="rotation without step 1: [new] is deployed, then the server accepts only the new secret",
        apply=_deployed_too_early,
        fetches=7,
        why="Processes with only the new secret are refused until the server accepts it, and for the backoff then.",
        refused=10.5,
        healed=6.5,
        lines=2 * PROCESSES,  # and that it has a token again
        cause="invalid_client",
        kept=False,
        life=SHORT_LIFE,
        limits={"backoff_seconds": 0.2},
    ),
)
