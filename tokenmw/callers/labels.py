"""What the program's `label` calls the credential of a request that has failed, for operators."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from starlette.requests import HTTPConnection

from tokenmw.errors import ConfigurationError
from tokenmw.observe.error_place import with_place
from tokenmw.options import checked_callback
from tokenmw.redaction import Unpicklable

if TYPE_CHECKING:
    from tokenmw.observe.throttle import ThrottledLog

__all__ = ["CredentialLabels", "Label"]

Label: TypeAlias = Callable[[HTTPConnection], str]
"""The program's callable."""

_LONGEST: Final = 60  # characters


class CredentialLabels(Unpicklable):
    """Calls the program's `label`, for a credential that a callable has chosen and whose request has failed.

    Args:
        function: The callable.
        log: Gets a line if it gives no label.

    Raises:
        ConfigurationError: It cannot be called with a connection, or is async.
    """

    __slots__ = ("_function", "_log")

    def __init__(self, function: Label, *, log: ThrottledLog) -> None:
        checked_callback(function, option="label", takes="(connection) -> str")
        if inspect.iscoroutinefunction(function):
            raise ConfigurationError("label is async, but it is not awaited: make it a plain function.")
        self._function = function
        self._log = log

    def of(self, connection: HTTPConnection) -> str:
        """Return the label of a request's credential, 60 characters at most; "" if there is none."""
        try:
            label: object = self._function(connection)
        except Exception as error:  # noqa: BLE001  whatever the program raises, the request's own error is raised
            self._log.problem("label", "TokenBroker(label=…) raised %s", with_place(error, called=self._function))
            return ""
        if not isinstance(label, str):
            self._log.problem("label", "TokenBroker(label=…) returned %s, not text", type(label).__name__)
            return ""
        return "".join(letter for letter in label[:_LONGEST] if letter.isprintable())
