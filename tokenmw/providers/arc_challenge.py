"""The challenge of Azure Arc: a file of this machine that only its administrators and the agent's group can read.

See https://learn.microsoft.com/azure/azure-arc/servers/managed-identity-authentication.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tokenmw.errors import TokenUnavailable
from tokenmw.redaction import HiddenStr

if TYPE_CHECKING:
    from tokenmw.providers.answer import Answer

__all__ = ["challenge_secret"]

# What listens at the endpoint's port may be another program, so it must not choose the file whose content it gets.
_DIRECTORY: Path = (
    Path(os.environ.get("PROGRAMDATA", r"C:\ProgramData"), "AzureConnectedMachineAgent", "Tokens")
    if os.name == "nt"
    else Path("/var/opt/azcmagent/tokens")
)
_MAX_BYTES: Final = 4096
_REALM: Final = re.compile(r'basic realm="?([^"\x00-\x1f]{1,1024})"?', re.IGNORECASE)
_SENDABLE: Final = re.compile(r"[\x21-\x7e]+")
# Windows has neither. A link would lead elsewhere; a pipe would block the thread.
_FLAGS: Final[int] = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


async def challenge_secret(answer: Answer) -> HiddenStr:
    """Return the content of the file that a 401 of the agent names, read in a thread.

    Raises:
        TokenUnavailable: The response names no file, or one that must not or cannot be read.
    """
    realm = _REALM.fullmatch(answer.headers.get("www-authenticate", "").strip())
    if realm is None:
        raise TokenUnavailable(
            f"{answer.endpoint} answered HTTP 401 without the name of a file (WWW-Authenticate: Basic realm=…), as the "
            f"agent of Azure Arc sends it: check identity_endpoint"
        )
    path = Path(realm[1])
    if path.parent != _DIRECTORY or path.suffix != ".key":
        raise TokenUnavailable(
            f"{answer.endpoint} names a challenge file that is no .key file in {_DIRECTORY}, so it was not read: check "
            f"that the agent of Azure Arc is what listens there"
        )
    try:
        content = await asyncio.to_thread(_read, path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise TokenUnavailable(
            f"the challenge file of {answer.endpoint} in {_DIRECTORY} cannot be read ({reason}): add the user of this "
            f"process to the group himds, and check that the file is no link"
        ) from None
    text = "" if content is None else content.decode("ascii", "replace").rstrip("\r\n")
    if not _SENDABLE.fullmatch(text):
        raise TokenUnavailable(
            f"the challenge file of {answer.endpoint} in {_DIRECTORY} is not one line of ASCII of at most {_MAX_BYTES} "
            f"bytes: restart the agent of Azure Arc"
        )
    return HiddenStr(text)


def _read(path: Path) -> bytes | None:
    """Return the file's content, or None if it is too long or no file."""
    if path.is_symlink():
        raise OSError(0, "it is a link")
    with os.fdopen(os.open(path, _FLAGS), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return None
        content = file.read(_MAX_BYTES + 1)
    return content if len(content) <= _MAX_BYTES else None
