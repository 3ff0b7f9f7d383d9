"""What is installed is what the project says it is."""

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

# What a plain installation brings, and what is only there for those who ask.
REQUIRED = {"anyio", "cachetools", "httpx", "redis", "starlette"}
OPTIONAL = ("cryptography", "fastapi", "httpx2", "jwt", "opentelemetry", "prometheus_client", "uvicorn")


def test_the_version_is_the_installed_one() -> None:
    """The attribute and the metadata cannot tell two stories."""
    assert metadata.version("tokenmw") == tokenmw.__version__


def test_every_promised_name_is_there() -> None:
    """The names that other people's code is written against are importable from the top."""
    assert sorted(tokenmw.__all__) == sorted(PUBLIC)
    assert [name for name in tokenmw.__all__ if not hasattr(tokenmw, name)] == []


def test_public_names_are_sorted() -> None:
    """A name is found where the alphabet has it."""
    assert sorted(tokenmw.__all__) == list(tokenmw.__all__)


def test_nothing_else_is_public() -> None:
    """What is not promised does not look as if it were."""
    # Modules appear as attributes as soon as anybody imports them.
    seen = {name for name, value in vars(tokenmw).items() if not isinstance(value, ModuleType)}
    assert {name for name in seen if not name.startswith("_")} - {"annotations"} <= PUBLIC


def test_the_package_says_that_it_is_typed() -> None:
    """Type checkers read our annotations (PEP 561)."""
    assert resources.files(tokenmw).joinpath("py.typed").is_file()


def test_a_plain_installation_is_small() -> None:
    """Everything beyond five libraries is an extra."""
    plain = [line for line in metadata.requires("tokenmw") or [] if "extra ==" not in line]
    assert {line.partition(">")[0] for line in plain} == REQUIRED


def test_the_import_needs_no_extra_and_warns_of_nothing() -> None:
    """`import tokenmw` works where no extra is installed."""
    # None in sys.modules makes an import fail as if the library were not there.
    absent = "; ".join(f"sys.modules[{name!r}] = None" for name in OPTIONAL)
    command = [sys.executable, "-W", "error", "-c", f"import sys; {absent}; from tokenmw import *"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.stderr == ""
    assert run.returncode == 0


def test_a_platform_is_imported_when_it_is_asked_for() -> None:
    """A service uses one or two of them. All are listed, and a name that is none is told as in any module."""
    said = """
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
    run = subprocess.run([sys.executable, "-W", "error", "-c", said], capture_output=True, text=True, check=True)
    assert "module 'tokenmw.providers' has no attribute 'Feishu'\n" == run.stdout
