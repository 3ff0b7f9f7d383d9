"""Finds the broker that a command line names as `module:name`."""

from __future__ import annotations

import importlib
import os
import sys
from contextlib import redirect_stdout
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from tokenmw.broker import TokenBroker
from tokenmw.errors import TokenmwError
from tokenmw.observe.error_place import with_place

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["TargetError", "find_broker"]


class TargetError(Exception):
    """Raised when a command line names no broker. The text says what is wrong, and the fix."""


def find_broker(target: str) -> TokenBroker:
    """Import a module and return its broker. What the import prints goes to stderr.

    Args:
        target: `module:name`; modules of the current directory are found.

    Raises:
        TargetError: There is no such broker.
    """
    module_name, colon, name = target.partition(":")
    if not (module_name and colon and name):
        raise TargetError(f"{target!r} is not module:name. Write for example app:broker.")
    module = _imported(module_name)
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if isinstance(found, TokenBroker):
        return found
    if found is None:
        brokers = sorted(other for other, value in vars(module).items() if isinstance(value, TokenBroker))
        fix = f"It has {', '.join(brokers)}." if brokers else "It has no TokenBroker: assign one to a global name."
        raise TargetError(f"The module {module_name} has no {name}. {fix}")
    if callable(found) and not isinstance(found, type) and hasattr(found, "__code__"):
        raise TargetError(
            f"{target} is a function, which is not called. Assign its broker to a global name, as in "
            f"`broker = {name}()`, and give that name."
        )
    kind = type(found).__name__
    held = list(cast("dict[object, object]", found).values()) if isinstance(found, dict) else found
    if isinstance(held, (list, tuple)) and any(isinstance(one, TokenBroker) for one in cast("list[object]", held)):
        raise TargetError(
            f"{target} is a {kind} of TokenBrokers. Assign the one that you mean to a global name, and give that name."
        )
    raise TargetError(f"{target} is a {kind}, not a TokenBroker. Give the name of the broker.")


def _imported(name: str) -> ModuleType:
    if os.getcwd() not in sys.path:  # noqa: PTH109  entries of sys.path are text
        sys.path.insert(0, os.getcwd())  # noqa: PTH109
    problem = ""
    try:
        with redirect_stdout(sys.stderr):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if f"{name}.".startswith(f"{missing}."):
            problem = f"There is no module {missing}. Run the command in the directory that has it, or install it."
        else:
            problem = f"The module {name} imports {missing}, which is not installed here."
    except TokenmwError as error:
        problem = f"The module {name} cannot be imported: {error}"
    except (Exception, SystemExit) as error:  # noqa: BLE001  a program's module may raise anything
        problem = _why_not_imported(name, error)
    raise TargetError(problem)


def _why_not_imported(name: str, error: BaseException) -> str:
    """Return what a module raised, without its text: a program may put a secret into it."""
    if variable := _missing_variable(error):
        return (
            f"The module {name} needs the environment variable {variable}, which is not set. Run the command with the "
            "environment of the program."
        )
    if isinstance(error, SyntaxError):
        return f"The module {name} cannot be imported: {type(error).__name__} at line {error.lineno}."
    return f"The module {name} cannot be imported: {with_place(error, called=SimpleNamespace(__module__=name))}."


def _missing_variable(error: BaseException) -> str:
    """Return the name of the variable that `os.environ` does not have, or "" for any other error."""
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    asked = step is not None and step.tb_frame.f_code is type(os.environ).__getitem__.__code__
    return f"{error.args[0]}" if asked and isinstance(error, KeyError) else ""
