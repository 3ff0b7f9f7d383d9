"""Client certificates (RFC 8705): their files, and the token requests that show them, over real TLS."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import pickle
import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from cryptography import x509

from tests.providers.mtls import NOW, Files, make_certificate, tls_server
from tests.providers.private_keys import make_key, pem_of
from tokenmw import TokenBroker
from tokenmw.errors import ConfigurationError, CredentialRejected, TokenUnavailable
from tokenmw.providers import (
    ClientCertificate,
    ClientCredentials,
    HTTPOptions,
    JWTBearer,
    PrivateKeyJWT,
    Provider,
    TokenExchange,
)
from tokenmw.providers.network import pools
from tokenmw.providers.x509_dates import validity_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from tests.providers.mtls import TLSServer

PASSWORD = "s3cr3t-of-the-key"
URL = "https://idp.example/token"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """A certificate in files."""
    directory = tmp_path / "client"
    directory.mkdir()
    return Files(directory)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncGenerator[TLSServer]:
    """A server that accepts client certificates of an authority."""
    async with tls_server(tmp_path) as made:
        yield made


def broker_of(server: TLSServer, **providers: Provider) -> TokenBroker:
    """Make a broker that trusts the server."""
    return TokenBroker(providers, http=HTTPOptions(ca_file=server.ca_file))


def crm(server: TLSServer | None = None, **options: Any) -> ClientCredentials:
    """Make a client of the server."""
    given: dict[str, Any] = {"client_id": "crm"}
    if "issuer" not in options:
        given["token_url"] = URL if server is None else f"{server.url}/t"
    return ClientCredentials(**(given | options))


METHODS: dict[str, Callable[[Files], dict[str, Any]]] = {
    "default": lambda _: {},
    "tls_client_auth": lambda _: {"auth_method": "tls_client_auth"},
    "self_signed_tls_client_auth": lambda _: {"auth_method": "self_signed_tls_client_auth"},
    "client_secret_post": lambda _: {"auth_method": "client_secret_post", "client_secret": "s"},
    "private_key_jwt": lambda _: {"client_assertion": PrivateKeyJWT(pem_of(make_key("P-256")))},
}


@pytest.mark.parametrize("method", METHODS)
async def test_the_certificate_is_shown(server: TLSServer, files: Files, method: str) -> None:
    """With each method, the form has the client's id, and the token is bound to the certificate."""
    options = await asyncio.to_thread(METHODS[method], files)
    certificate = await asyncio.to_thread(files.load)
    async with broker_of(server, crm=crm(server, certificate=certificate, **options)) as broker:
        assert f"t-{files.thumbprint}" == (await broker.token("crm")).value
    path, form, shown = server.requests[0]
    assert ("/t", "crm", certificate.thumbprint) == (path, form["client_id"], shown)
    assert ("client_secret" in form) is (method == "client_secret_post")


async def test_each_grant_shows_it(server: TLSServer, files: Files) -> None:
    """One pool of connections serves all grants of a certificate."""
    options: dict[str, Any] = {
        "token_url": f"{server.url}/t",
        "client_id": "crm",
        "certificate": await asyncio.to_thread(files.load),
    }
    providers = {
        "a": ClientCredentials(**options),
        "b": TokenExchange(subject="sub", **options),
        "c": JWTBearer(assertion="a.b.c", **options),
    }
    async with broker_of(server, **providers) as broker:
        for name in providers:
            assert (await broker.token(name)).value
    assert [files.thumbprint] * 3 == [shown for _, _, shown in server.requests]
    assert 1 == server.connections


async def test_the_alias_of_the_metadata_is_used(server: TLSServer, files: Files) -> None:
    """Only clients with a certificate are sent to it (RFC 8705 §5)."""
    server.metadata = {
        "issuer": server.url,
        "token_endpoint": f"{server.url}/plain",
        "mtls_endpoint_aliases": {"token_endpoint": f"{server.url}/mtls"},
    }
    certificate = await asyncio.to_thread(files.load)
    providers = {
        "a": crm(issuer=server.url, certificate=certificate),
        "b": crm(issuer=server.url, client_secret="s"),
    }
    async with broker_of(server, **providers) as broker:
        assert [(await broker.token(name)).value[:3] for name in providers]
    assert [("/mtls", certificate.thumbprint), ("/plain", "")] == [(path, shown) for path, _, shown in server.requests]


async def test_an_alias_that_cannot_be_used_is_left_out(server: TLSServer, files: Files) -> None:
    """The server's plain endpoint is asked."""
    server.metadata = {
        "issuer": server.url,
        "token_endpoint": f"{server.url}/plain",
        "mtls_endpoint_aliases": {"token_endpoint": "http://mtls.example/token"},
    }
    made = crm(issuer=server.url, certificate=await asyncio.to_thread(files.load))
    async with broker_of(server, crm=made) as broker:
        assert (await broker.token("crm")).value
    assert "/plain" == server.requests[0][0]


async def test_renewed_files_are_read_for_the_next_request(server: TLSServer, files: Files) -> None:
    """A new connection shows the new certificate; the credential stays the same one."""
    certificate = await asyncio.to_thread(files.load)
    made = crm(server, certificate=certificate)
    async with broker_of(server, crm=made) as broker:
        first = await broker.token("crm")
        files.write(certificate=make_certificate(), key=pem_of(make_key("P-256")))
        await broker.invalidate_provider("crm")
        second = await broker.token("crm")
    assert first.value != second.value == f"t-{files.thumbprint}"
    assert certificate.thumbprint == files.thumbprint
    assert made == crm(server, certificate=certificate)
    assert made != crm(server, certificate=await asyncio.to_thread(files.load))


async def test_changed_files_that_cannot_be_used_change_nothing(
    server: TLSServer, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    """The certificate that was read before stays in use, and the log says why, once."""
    certificate = await asyncio.to_thread(files.load)
    async with broker_of(server, crm=crm(server, certificate=certificate)) as broker:
        first = await broker.token("crm")
        files.key.write_text(pem_of(make_key("P-256", number=2)))
        for _ in range(2):
            await broker.invalidate_provider("crm")
            assert first.value == (await broker.token("crm")).value
    found = [record for record in caplog.records if getattr(record, "tokenmw.kind", "") == "certificate-file"]
    assert 1 == len(found)
    assert "the key is that of another certificate" in found[0].getMessage()


async def test_files_that_cannot_be_used_at_the_first_request_are_named(server: TLSServer, files: Files) -> None:
    """Without a connection of before, there is no token, and the server is not asked."""
    certificate = await asyncio.to_thread(files.load)
    files.key.unlink()
    async with broker_of(server, crm=crm(server, certificate=certificate)) as broker:
        with pytest.raises(TokenUnavailable, match=r"was not asked: ClientCertificate cannot read its file \(No such"):
            await broker.token("crm")
    assert not server.requests


async def test_a_file_system_that_hangs_stops_no_request(
    server: TLSServer, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a second, the certificate that was read before is used."""
    certificate = await asyncio.to_thread(files.load)
    released = threading.Event()

    def hanging(_files: object) -> tuple[()]:
        released.wait(20)
        return ()

    async with broker_of(server, crm=crm(server, certificate=certificate)) as broker:
        await broker.token("crm")
        monkeypatch.setattr(type(certificate._files), "_stamps", hanging)
        await broker.invalidate_provider("crm")
        assert f"t-{files.thumbprint}" == (await broker.token("crm")).value
        released.set()


@pytest.mark.parametrize("status", [400, 503])
async def test_a_failure_names_an_expired_certificate(tmp_path: Path, server: TLSServer, status: int) -> None:
    """A server that refuses it says less."""
    directory = tmp_path / "expired"
    directory.mkdir()
    certificate = await asyncio.to_thread(Files(directory, ends=NOW - dt.timedelta(days=1)).load)
    server.answers = [(status, {"error": "invalid_client"})]
    async with broker_of(server, crm=crm(server, certificate=certificate)) as broker:
        with pytest.raises((CredentialRejected, TokenUnavailable)) as caught:
            await broker.token("crm")
        assert "tls.crt') expired at 2" in str(caught.value)
        assert "tls.crt" not in caught.value.detail
        failure = broker.status().providers["crm"].failure
    assert failure is not None
    assert "expired at 2" in failure


@pytest.mark.parametrize(("days", "warned"), [(8, 0), (6, 1)])
async def test_the_log_warns_before_it_expires(
    tmp_path: Path, server: TLSServer, caplog: pytest.LogCaptureFixture, days: int, warned: int
) -> None:
    """A week before, and once for each certificate."""
    directory = tmp_path / "short"
    directory.mkdir()
    begins = NOW - dt.timedelta(days=90)
    files = Files(directory, begins=begins, ends=NOW + dt.timedelta(days=days))
    certificate = await asyncio.to_thread(files.load)
    async with broker_of(server, crm=crm(server, certificate=certificate)) as broker:
        for _ in range(2):
            await broker.invalidate_provider("crm")
            server.answers = [(400, {"error": "invalid_client"})]
            with pytest.raises((CredentialRejected, TokenUnavailable)):
                await broker.token("crm")
    kinds = [getattr(record, "tokenmw.kind", "") for record in caplog.records if record.levelno == logging.WARNING]
    assert warned == kinds.count("certificate-expiry")


async def test_certificates_have_pools_of_their_own_within_a_bound(
    tmp_path: Path, server: TLSServer, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were used longest ago are closed."""
    monkeypatch.setattr(pools, "_MAX_CERTIFICATES", 2)
    made: list[ClientCertificate] = []
    for number in range(4):
        directory = tmp_path / str(number)
        directory.mkdir()
        made.append(await asyncio.to_thread(Files(directory).load))
    async with broker_of(server, **{f"c{n}": crm(server, certificate=one) for n, one in enumerate(made)}) as broker:
        for number in range(4):
            await broker.token(f"c{number}")
    assert [one.thumbprint for one in made] == [shown for _, _, shown in server.requests]
    assert 4 == server.connections


def test_a_client_of_the_program_is_refused(files: Files) -> None:
    """Its TLS is not ours to set; the text says what to do."""
    with pytest.raises(ConfigurationError, match=r"certificate=… needs the HTTP client of tokenmw.*leave http= out"):
        TokenBroker({"crm": crm(certificate=files.load())}, http=httpx.AsyncClient())


async def test_a_certificate_of_a_request_is_refused_by_a_client_of_the_program(files: Files) -> None:
    """It is known only when a callable returns it."""
    made = crm(certificate=await asyncio.to_thread(files.load))
    async with httpx.AsyncClient() as http, TokenBroker({}, http=http) as broker:
        with pytest.raises((ConfigurationError, TokenUnavailable), match="needs the HTTP client of tokenmw"):
            await broker.token(made)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"auth_method": "tls_client_auth"}, "needs certificate=ClientCertificate"),
        ({"auth_method": "self_signed_tls_client_auth"}, "needs certificate=ClientCertificate"),
        ({"auth_method": "mtls"}, "did you mean 'tls_client_auth'"),
        ({"certificate": "/run/tls.crt", "auth_method": "tls_client_auth"}, "must be a ClientCertificate"),
        ({"auth_method": "tls_client_auth", "client_secret": "s", "certificate": "FILES"}, "takes no client_secret"),
        ({"auth_method": "client_secret_basic", "certificate": "FILES"}, "needs client_secret"),
        ({"token_url": "http://127.0.0.1/t", "certificate": "FILES"}, "needs an https token_url"),
    ],
)
def test_contradicting_options_are_refused(files: Files, options: dict[str, Any], text: str) -> None:
    """The text names the option."""
    given: dict[str, Any] = {name: files.load() if value == "FILES" else value for name, value in options.items()}
    with pytest.raises(ConfigurationError, match=text):
        crm(**given)


def test_a_renewed_certificate_is_the_same_credential_by_its_id(files: Files) -> None:
    """Without `credential_id` it is another one, because tokens may be bound to it."""
    first = files.load()
    files.write(certificate=make_certificate(), key=pem_of(make_key("P-256")))
    second = files.load()
    assert crm(certificate=first) != crm(certificate=second)
    assert crm(certificate=first, credential_id="a") == crm(certificate=second, credential_id="a")


UNUSABLE: list[tuple[Callable[[Files], object], str]] = [
    (lambda f: f.key.write_text(pem_of(make_key("P-256", number=2))), "the key is that of another certificate"),
    (lambda f: f.key.write_text(pem_of(make_key("RSA-2048"))), "of another certificate"),
    (lambda f: f.key.write_text("nothing"), "key_file has no private key"),
    (lambda f: f.key.unlink(), "cannot read its file .No such file"),
    (lambda f: f.certificate.unlink(), "cannot read its file .No such file"),
    (lambda f: f.certificate.write_text("nothing"), "has no certificate in PEM"),
    (lambda f: f.certificate.write_bytes(b"x" * 300_000), "more than 262144 bytes"),
    (lambda f: f.key.write_text(pem_of(make_key("P-256"), password=b"another")), "its key is encrypted"),
    (lambda f: f.key.write_text(pem_of(make_key("P-256"))[:80] + "\n"), "no private key|cannot be used"),
    (
        lambda f: f.certificate.write_text(f.certificate.read_text().replace("MII", "AII", 1)),
        "cannot be used|no X.509|of another",
    ),
]


@pytest.mark.parametrize(("change", "text"), UNUSABLE)
def test_files_that_cannot_be_used_are_refused(files: Files, change: Callable[[Files], object], text: str) -> None:
    """The text names the file and the problem, and has no part of the key."""
    change(files)
    with pytest.raises(ConfigurationError, match=text) as caught:
        files.load()
    assert "BEGIN" not in str(caught.value).replace("-----BEGIN PRIVATE KEY-----", "").replace(
        "-----BEGIN CERTIFICATE-----", ""
    )


def test_a_certificate_without_its_key_is_refused(files: Files) -> None:
    """The text names the option."""
    with pytest.raises(ConfigurationError, match=r"give key_file=…"):
        ClientCertificate(files.certificate)


def test_one_file_may_have_both(files: Files) -> None:
    """The key may be before or after the certificate."""
    both = files.certificate.with_name("both.pem")
    both.write_text(files.key.read_text() + files.certificate.read_text())
    assert files.thumbprint == ClientCertificate(str(both)).thumbprint


def test_an_encrypted_key_needs_its_password(files: Files) -> None:
    """A wrong one is refused, and no text, `repr` or pickle has it."""
    files.key.write_text(pem_of(make_key("P-256"), password=PASSWORD.encode()))
    made = files.load(password=PASSWORD)
    assert PASSWORD not in repr(made) + repr(vars(type(made)))
    with pytest.raises(TypeError, match="holds secrets"):
        pickle.dumps(made)
    with pytest.raises(ConfigurationError, match="password does not open") as caught:
        files.load(password="wrong-" + PASSWORD)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("given", [None, 7, "", "-----BEGIN CERTIFICATE-----"])
def test_paths_are_checked(given: Any) -> None:
    """PEM itself is no path."""
    with pytest.raises(ConfigurationError, match="cert_file=…"):
        ClientCertificate(given)


@pytest.mark.parametrize("ends", ["2049-12-31", "2050-01-01", "9999-12-31", "1999-06-30"])
def test_dates_are_read_as_cryptography_reads_them(ends: str) -> None:
    """Both forms of a time are known."""
    until = dt.datetime.fromisoformat(ends).replace(tzinfo=dt.UTC)
    begins = dt.datetime(1970, 1, 2, tzinfo=dt.UTC)
    certificate = x509.load_pem_x509_certificate(make_certificate(begins=begins, ends=until).encode())
    from cryptography.hazmat.primitives.serialization import Encoding

    der = certificate.public_bytes(Encoding.DER)
    assert (begins.timestamp(), until.timestamp()) == validity_of(der)
    for cut in range(0, 120, 7):
        with pytest.raises(ValueError, match=r".*"):
            validity_of(der[:cut])
