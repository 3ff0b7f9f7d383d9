"""Reads single keys from the terminal in which the demo runs."""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import sys
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["Keyboard", "is_terminal", "open_keyboard"]

# Windows has neither; the demo takes no keys there.
_TERMINAL: Final[Any] = None if sys.platform == "win32" else importlib.import_module("termios")
_MODES: Final[Any] = None if sys.platform == "win32" else importlib.import_module("tty")


def is_terminal() -> bool:
    """Return whether keys can be read: stdin and stdout are a terminal, and this process is in its foreground."""
    if _TERMINAL is None or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    try:
        # In the background, changing the terminal's mode would stop this process.
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:  # a terminal that does not control this process
        return False


class Keyboard:
    """Reads keys; without a terminal there are none.

    Args:
        descriptor: The terminal's file descriptor; None without a terminal.
    """

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def read(self, seconds: float) -> str:
        """Wait for a key and return it, or return "" after `seconds`."""
        if self._descriptor is None:
            time.sleep(seconds)
            return ""
        readable, _, _ = select.select([self._descriptor], [], [], seconds)
        if not readable:
            return ""
        try:
            key = os.read(self._descriptor, 1)
        except OSError:
            key = b""
        if not key:  # the terminal was closed; SIGHUP ends the demo
            self._descriptor = None
        return key.decode(errors="replace")


@contextlib.contextmanager
def open_keyboard() -> Generator[Keyboard]:
    """Read keys without Enter, and do not show them; restore the terminal at the end. Ctrl-C stays a signal."""
    if not is_terminal():
        yield Keyboard(None)
        return
    descriptor = sys.stdin.fileno()
    before = _TERMINAL.tcgetattr(descriptor)
    _MODES.setcbreak(descriptor)
    try:
        yield Keyboard(descriptor)
    finally:
        with contextlib.suppress(_TERMINAL.error):  # the terminal was closed
            _TERMINAL.tcsetattr(descriptor, _TERMINAL.TCSADRAIN, before)
