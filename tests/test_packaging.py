"""The installed package has the promised names, dependencies and type information."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata, resources
from types import ModuleType

import tokenmw

PUBLIC = {
    "APIKeyRefused",
    "APIKeySource",
    "ConfigurationError",
    "CredentialRejected",
    "Grant",
    "Limits",
    "Observer",
    "Provider",
    "RequestState",
    "RequestTokens",
    "SessionUnavailable",
    "Status",
    "Token",
    "TokenAuth",
    "TokenBroker",
    "TokenMiddleware",
    "TokenUnavailable",
    "TokenmwError",
    "provider_token",
    "request_tokens",
    "session_id",
}

# The dependencies of an installation without extras, and libraries that only extras install.
REQUIRED = {"anyio", "cachetools", "httpx", "redis", "starlette"}
OPTIONAL = ("cryptography", "fastapi", "httpx2", "jwt", "opentelemetry", "prometheus_client", "structlog", "uvicorn")


def test_the_version_is_the_installed_one() -> None:
    """`__version__` is the version in the metadata."""
    assert metadata.version("tokenmw") == tokenmw.__version__


def test_all_public_names_exist() -> None:
    """All public names can be imported from `tokenmw`."""
    assert sorted(tokenmw.__all__) == sorted(PUBLIC)
    assert [name for name in tokenmw.__all__ if not hasattr(tokenmw, name)] == []


def test_public_names_are_sorted() -> None:
    """`__all__` is in alphabetical order."""
    assert sorted(tokenmw.__all__) == list(tokenmw.__all__)


def test_no_other_name_is_public() -> None:
    """Every name of `tokenmw` that is not public begins with an underscore."""
    # Modules become attributes when they are imported.
    seen = {name for name, value in vars(tokenmw).items() if not isinstance(value, ModuleType)}
    assert {name for name in seen if not name.startswith("_")} - {"annotations"} <= PUBLIC


def test_the_package_is_marked_as_typed() -> None:
    """The package has a `py.typed` file, so that type checkers read its annotations (PEP 561)."""
    assert resources.files(tokenmw).joinpath("py.typed").is_file()


def test_an_installation_without_extras_has_five_dependencies() -> None:
    """All dependencies but five are extras."""
    plain = [line for line in metadata.requires("tokenmw") or [] if "extra ==" not in line]
    assert {line.partition(">")[0] for line in plain} == REQUIRED


def test_the_import_needs_no_extra() -> None:
    """`import tokenmw` succeeds without any extra, and without warnings."""
    # None in sys.modules makes an import fail as if the library were not installed.
    absent = "; ".join(f"sys.modules[{name!r}] = None" for name in OPTIONAL)
    command = [sys.executable, "-W", "error", "-c", f"import sys; {absent}; from tokenmw import *"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.stderr == ""
    assert run.returncode == 0


def test_platforms_are_imported_on_first_use() -> None:
    """A provider's module is imported on first use; `dir` lists all names, and an unknown name is an AttributeError."""
    program = """
import sys
import tokenmw
from tokenmw import providers
assert "FeishuTenant" in dir(providers)
before = {"tokenmw.providers.feishu", "tokenmw.providers.oauth2"} & set(sys.modules)
providers.FeishuTenant
assert (before, "tokenmw.providers.feishu" in sys.modules) == (set(), True)
try:
    providers.Feishu
except AttributeError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert "module 'tokenmw.providers' has no attribute 'Feishu'\n" == run.stdout
