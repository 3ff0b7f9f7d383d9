"""The processes of the demo: they end when it does, and it ends when one of them does."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from typing import IO, TYPE_CHECKING, Any, Final, NoReturn, Self, TypeVar

from tokenmw.errors import TokenmwError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import FrameType

__all__ = ["Child", "Children", "DemoFailed", "DemoInterrupted"]

_END_SECONDS: Final = 3.0
_LOOK_SECONDS: Final = 0.05

T = TypeVar("T")


class DemoFailed(TokenmwError):
    """Raised when the demo cannot go on; the text says which of its parts is the reason."""


class DemoInterrupted(TokenmwError):
    """Raised when a signal asked the demo to end.

    Attributes:
        signal: Its number.
    """

    def __init__(self, number: int) -> None:
        self.signal = number
        super().__init__(f"ended by {signal.Signals(number).name}")


class Child:
    """One process that was started.

    Attributes:
        name: How messages call it.
        process: The process, whose stdin is a pipe.
    """

    def __init__(self, name: str, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.process = process

    def ask_to_end(self) -> None:
        """Close its stdin, which our own workers end with. Another program has to be killed."""
        if self.process.stdin is not None:
            # What a child that is dead already was not sent is of no interest.
            with contextlib.suppress(OSError):
                self.process.stdin.close()

    def end(self) -> None:
        """Wait until it has ended, or end it; then close its pipes."""
        try:
            self.process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


class Children:
    """Starts processes and waits for things to happen, and meanwhile sees signals and deaths.

    Inside of its `with`, SIGINT, SIGTERM and SIGHUP only leave a note, which :meth:`check` turns into an error: an
    exception out of a signal handler could come between a process and the note that it has to be ended.
    """

    def __init__(self) -> None:
        self._children: list[Child] = []
        self._signal: int | None = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number: int | None = getattr(signal, name, None)
            # nohup ignores SIGHUP, and means it.
            if number is not None and not (name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN):
                self._handlers[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_exc: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._signal = self._signal or number

    def start(
        self, name: str, command: Sequence[str], *, cwd: Path, env: Mapping[str, str], stdout: IO[bytes] | int
    ) -> Child:
        """Start a process with a pipe for its stdin. If its stdout is a file, its stderr is the same one.

        It gets a session of its own: Ctrl-C in a terminal reaches a whole group, and then the server would be gone
        before those who use it, who would complain.

        Raises:
            DemoFailed: This machine cannot run the program.
        """
        try:
            process = subprocess.Popen(  # noqa: S603  the program is ours or a wheel's
                command,
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=None if stdout == subprocess.PIPE else subprocess.STDOUT,
                cwd=cwd,
                env=env,
                start_new_session=True,
            )
        except OSError as error:
            raise DemoFailed(f"{name} does not start: {error.strerror}.") from None
        child = Child(name, process)
        self._children.append(child)
        return child

    def end(self, *children: Child) -> None:
        """End processes, which is no death to complain of."""
        for child in children:
            if child in self._children:
                self._children.remove(child)
            child.ask_to_end()
        for child in children:
            child.end()

    def check(self) -> None:
        """Raise what has happened meanwhile.

        Raises:
            DemoInterrupted: A signal came.
            DemoFailed: A process has ended by itself.
        """
        if self._signal is not None:
            raise DemoInterrupted(self._signal)
        for child in self._children:
            code = child.process.poll()
            if code is not None:
                how = f"exit code {code}" if code >= 0 else f"signal {-code}"
                raise DemoFailed(f"{child.name} (process {child.process.pid}) has ended with {how}.")

    def wait(self, look: Callable[[], T | None], *, seconds: float, what: str) -> T:
        """Look again and again, for so many seconds at most, and return what is there at last.

        Raises:
            DemoInterrupted: A signal came.
            DemoFailed: A process has ended by itself, or the time is over.
        """
        deadline = time.monotonic() + seconds
        while (found := look()) is None:
            self.check()
            if time.monotonic() > deadline:
                raise DemoFailed(f"{what} took more than {seconds:.0f} s.")
            time.sleep(_LOOK_SECONDS)
        return found

    def watch(self, look: Callable[[], object]) -> NoReturn:
        """Look again and again until something has happened, which is raised as :meth:`check` does."""
        while True:
            self.check()
            look()
            time.sleep(_LOOK_SECONDS)
