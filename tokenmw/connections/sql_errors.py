"""What a database's error means, in a text without values, parameters and passwords."""

from __future__ import annotations

from socket import gaierror
from typing import Any, Final

__all__ = ["failure_text", "is_missing_table"]

_FIXES: Final = {
    "SQLITE_BUSY": "another process holds its lock",
    "SQLITE_READONLY": "the file, or its directory, is read-only for this user",
    "SQLITE_FULL": "the disk is full",
    "SQLITE_IOERR": "the disk failed: see the log of the system",
    "SQLITE_CANTOPEN": "the file cannot be opened: check its path, and the rights of its directory",
    "SQLITE_NOTADB": "the file is not an SQLite database",
    "SQLITE_CORRUPT": "the file is damaged: restore a backup",
    "25006": "it is read-only, or a replica: name the primary",
    "28000": "user or password are wrong, or pg_hba.conf forbids this host",
    "28P01": "user or password are wrong",
    "3D000": "the database does not exist",
    "42501": "this user lacks a right on the table",
    "53100": "the disk is full",
    "53300": "it has too many connections",
    "57P01": "it is shutting down",
    "57P03": "it is starting or shutting down",
}
_LONGEST: Final = 40


def failure_text(error: BaseException, *, place: str) -> str:
    """Return what happened, where, and how to fix it if that is known."""
    cause: Any = getattr(error, "orig", None) or error
    code = str(getattr(cause, "sqlite_errorname", None) or getattr(cause, "sqlstate", None) or "")[:_LONGEST]
    # SQLITE_READONLY_DBMOVED and others are special cases of one code.
    fix = next((fix for known, fix in _FIXES.items() if code == known or code.startswith(f"{known}_")), "")
    if isinstance(cause, ConnectionRefusedError):
        fix = "nothing listens there: check host and port, and that it runs"
    elif isinstance(cause, gaierror):
        fix = "its host name does not resolve"
    what = code or type(cause).__name__
    return f"the database of connections ({place}) failed: {what}{fix and f', {fix}'}"


def is_missing_table(error: BaseException) -> bool:
    """Return whether a statement failed because its table does not exist."""
    cause: Any = getattr(error, "orig", None) or error
    return getattr(cause, "sqlstate", None) == "42P01" or str(cause).startswith("no such table: ")
