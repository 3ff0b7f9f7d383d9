"""Any order of events between processes that are paused, killed, and whose writes are lost: no token is sent twice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.connections.model import LIFETIME, LIMITS, Model, Outcome, Step
from tokenmw.errors import RequestError

PROCESSES = 3
ROUNDS = 400


class Processes(RuleBasedStateMachine):
    """Three processes with one connection; a killed one is replaced."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.model = Model()
        self.model.connect()
        self.loop.run_until_complete(self._begin())

    async def _begin(self) -> None:
        for _ in range(PROCESSES):
            self.model.start()

    def run(self, work: Any = None) -> None:
        """Run something, then everything that waits for nothing but its turn."""

        async def settle() -> None:
            if work is not None:
                work()
            for _ in range(30):
                await asyncio.sleep(0)

        self.loop.run_until_complete(settle())

    @rule(number=st.integers(0, PROCESSES - 1))
    def ask(self, number: int) -> None:
        """A request of one process needs the token."""
        self.run(self.model.processes[number].ask)

    @precondition(lambda self: self.model.steps)
    @rule(data=st.data(), outcome=st.sampled_from(["done", "done", "done", "done", "lost", "reply lost"]))
    def go_on(self, data: st.DataObject, outcome: Outcome) -> None:
        """One step of one process happens; a call of the store may fail before or after its work."""
        step = data.draw(st.sampled_from(self.model.steps), label="step")
        self._let(step, "done" if "post" in step.name else outcome)

    @rule(seconds=st.sampled_from([0.2, 3.0, 11.0, 25.0, 31.0, LIFETIME]))
    def pause(self, seconds: float) -> None:
        """Time passes, in which the steps that wait do not happen, as of a process that is stopped."""
        self.run(lambda: self.model.clock.advance(seconds))

    @rule(number=st.integers(0, PROCESSES - 1))
    def kill(self, number: int) -> None:
        """A process is killed and replaced by another one."""

        def replace() -> None:
            self.model.processes[number].kill()
            self.model.processes[number] = self.model.start()
            self.model.processes.pop()

        self.run(replace)

    def _let(self, step: Step, outcome: Outcome) -> None:
        self.model.steps.remove(step)

        def go() -> None:
            if not step.go.done():
                step.go.set_result(outcome)

        self.run(go)

    @invariant()
    def no_token_is_sent_twice(self) -> None:
        """But for the named case, and a process that was paused with the answer for longer than its claim lasts."""
        twice = self.model.sent_twice()
        for token in twice:
            first, second = [post for post in self.model.posts if post.token == token][:2]
            assert self.model.excused or second.at - first.at >= LIMITS.exchange_seconds, token
            if not first.delivered:
                self.model.excused = True
            assert self.model.excused, token
        assert self.model.alive or twice

    def teardown(self) -> None:
        """When everything goes on, every process has the newest token within a minute, and one refresh is enough."""
        try:
            if self.model.alive and not self.model.excused:
                self._everybody_is_served()
        finally:
            self.run(self._kill_all)
            self.loop.close()

    def _kill_all(self) -> None:
        for process in self.model.processes:
            process.kill()

    def _everybody_is_served(self) -> None:
        waiting = list(self.model.processes)
        for _ in range(ROUNDS):
            for process in waiting:
                if all(task.done() for task in process.tasks):
                    self.run(process.ask)
            while self.model.steps:
                self._let(self.model.steps[0], "done")
            self.run(lambda: self.model.clock.advance(0.5))
            waiting = [process for process in waiting if not _served(process.tasks[-1], self.model.access_tokens)]
            if not waiting or self.model.excused:  # an answer that waited since before may be too late now
                return
        pytest.fail(f"{len(waiting)} processes are not served")


def _served(task: asyncio.Task[Any], access_tokens: list[str]) -> bool:
    if not task.done() or task.cancelled():
        return False
    error = task.exception()
    if error is not None:
        assert isinstance(error, RequestError)
        return False
    return bool(task.result().value == access_tokens[-1])


TestProcesses = Processes.TestCase
TestProcesses.settings = settings(max_examples=200, stateful_step_count=60)
