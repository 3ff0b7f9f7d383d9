"""What pyproject.toml says about the project."""

from __future__ import annotations

import tomllib
from typing import Any, Final

from tests.docs.pages import ROOT

__all__ = ["BLOB", "PROJECT", "SDIST"]

_FILE: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT: Final[dict[str, Any]] = _FILE["project"]
SDIST: Final[list[str]] = _FILE["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
BLOB: Final[str] = f"{PROJECT['urls']['Homepage']}/blob/main/"
