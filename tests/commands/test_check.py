"""`tokenmw check`: its lines, exit codes and error texts, against real servers."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import re
import time
from typing import TYPE_CHECKING, Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.demo.commands import run, wait_until
from tests.faults.certificates import certificates
from tests.interop.running import imported
from tests.ports import free_port
from tests.servers import RedisServer
from tokenmw import TokenBroker
from tokenmw.cli import main
from tokenmw.commands.check_redis import findings_of
from tokenmw.redis.acl import ACL_RULES, CATEGORIES
from tokenmw.redis.scripts import SOURCES
from tokenmw.redis.server_facts import ServerFacts, TLSFacts
from tokenmw.testing import ProviderServer

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Generator
    from pathlib import Path

SECRET: Final = "canary-of-the-secret-key"
CLIENT_SECRET: Final = "canary-of-the-client-secret"
PASSWORD: Final = "canary-of-the-password"
CLUSTER: Final = ("--cluster-enabled", "yes")
PROGRAM: Final = """
from tokenmw import TokenBroker
from tokenmw.connections import Connections, OAuthApp, RedisStore
from tokenmw.providers import ClientCredentials, StaticToken

print("canary of the program's output")
crm = ClientCredentials(token_url={url!r}, client_id="crm", client_secret={client_secret!r})
broker = TokenBroker({{"crm": crm, "tenant": lambda connection: crm}}, redis={redis!r}, {options})
text = "no broker"


def make():
    return broker
"""


class Checked:
    """Writes the program of a test and checks it.

    Attributes:
        directory: Where the program is.
    """

    def __init__(self, directory: Path, url: str) -> None:
        self.directory = directory
        self._url = url

    def __call__(
        self,
        redis: str | None,
        *arguments: str,
        name: str = "program:broker",
        secret: str = CLIENT_SECRET,
        options: str = f"secret_key={SECRET!r}",
    ) -> subprocess.CompletedProcess[str]:
        """Run the check, and search its output for secrets."""
        text = PROGRAM.format(url=self._url, client_secret=secret, redis=redis, options=options)
        (self.directory / "program.py").write_text(text)
        done = run("check", name, *arguments, directory=self.directory)
        for canary in (SECRET, secret, PASSWORD):
            assert canary not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        assert "\x1b" not in done.stdout
        return done


@pytest.fixture
def check(tmp_path: Path) -> Generator[Checked]:
    """Check a program whose provider is a token server with the client "crm"."""
    with ProviderServer(clients={"crm": CLIENT_SECRET}, token_life=3600).running() as url:
        yield Checked(tmp_path, f"{url}/oauth2/token")


def test_all_is_well(check: Checked) -> None:
    """Every line is `ok`, and the exit code is 0; credentials of requests are not checked."""
    with RedisServer() as server:
        done = check(server.url)
    assert (done.returncode, done.stderr) == (0, "canary of the program's output\n"), done.stdout
    assert {line.split()[0] for line in done.stdout.splitlines()} == {"ok"}
    assert "round trip" in done.stdout
    assert "expires in 36" in done.stdout or "expires in 35" in done.stdout
    assert "not checked: its credentials depend on the request" in done.stdout


def test_json_is_one_object(check: Checked) -> None:
    """`--json` prints the findings and the exit code, and nothing that the program prints."""
    with RedisServer() as server:
        done = check(server.url, "--json")
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["exit_code"] == done.returncode == 0
    assert {one["result"] for one in report["findings"]} == {"ok"}


def test_warnings_alone_are_exit_code_2(check: Checked) -> None:
    """A policy that evicts, values that are not sealed, and too few connections for the processes are warnings."""
    with RedisServer("--maxmemory-policy", "allkeys-lru", "--maxclients", "100") as server:
        done = check(server.url, "--processes", "50", options="")
    warned = [line for line in done.stdout.splitlines() if line.startswith("WARN")]
    assert done.returncode == 2, done.stdout
    assert len(warned) == 4
    assert "CONFIG SET maxmemory-policy noeviction" in done.stdout
    assert "CONFIG SET maxclients 400" in done.stdout


def test_a_closed_port_fails(check: Checked) -> None:
    """Redis fails with its address and the fix; the provider is checked nevertheless."""
    port = free_port()
    done = check(f"redis://:{PASSWORD}@127.0.0.1:{port}/0")
    assert done.returncode == 1
    assert f"127.0.0.1:{port} cannot be used (refused): nothing listens there" in done.stdout
    assert "has a token, from the provider, that expires in" in done.stdout


def test_without_redis_nothing_of_it_is_said(check: Checked) -> None:
    """There are no hints then, and no token can be from Redis."""
    done = check(None)
    assert done.returncode == 0, done.stdout
    assert "hints" not in done.stdout
    assert "has a token, from the provider, that expires in" in done.stdout


def test_instances_with_another_secret_are_a_warning(check: Checked) -> None:
    """Otherwise all would be ok with a `secret_key` that is not the service's."""

    async def beside(server: RedisServer) -> subprocess.CompletedProcess[str]:
        async with TokenBroker({}, redis=server.url, secret_key="canary-of-the-service's-key"):
            await asyncio.to_thread(wait_until, lambda: bool(server.command("KEYS", "*:beat-*")))
            return await asyncio.to_thread(check, server.url)

    with RedisServer() as server:
        done = asyncio.run(beside(server))
    assert done.returncode == 2, done.stdout
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("WARN"))
    assert "1 instance has a heartbeat that is sealed with a secret that this configuration does not have" in line
    assert "secret_key" in line


def test_a_wrong_password_fails(check: Checked) -> None:
    """The line says which option is wrong, and has no password."""
    with RedisServer("--requirepass", "another") as server:
        done = check(f"redis://:{PASSWORD}@127.0.0.1:{server.port}/0")
    assert done.returncode == 1
    assert "it refuses the user or the password of redis=" in done.stdout


@pytest.mark.parametrize("missing", sorted(set(CATEGORIES) - {"command", "cluster|slots", "select", "info", "evalsha"}))
def test_a_missing_permission_fails(check: Checked, missing: str) -> None:
    """The line names the permission's `ACL SETUSER` line."""
    rules = ACL_RULES.replace("<namespace>", "tokenmw").replace(f" +{missing}", "", 1) + f" -{missing}"
    with RedisServer() as server:
        server.command("ACL", "SETUSER", "lean", "reset", "on", f">{PASSWORD}", *rules.split())
        done = check(f"redis://lean:{PASSWORD}@127.0.0.1:{server.port}/0")
    assert done.returncode == 1, done.stdout
    assert f"ACL SETUSER <user> {ACL_RULES}" in done.stdout


def test_a_rejected_credential_fails(check: Checked) -> None:
    """The provider's line has the reason that the log has."""
    with RedisServer() as server:
        done = check(server.url, secret="canary-of-a-wrong-secret")
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("FAIL"))
    assert done.returncode == 1
    assert re.match(r"FAIL +provider crm +the provider rejects the credential: ", line), "its name is there once"
    assert "invalid_client" in line


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("program", "'program' is not module:name"),
        ("nowhere:broker", "There is no module nowhere."),
        ("program:brokr", "The module program has no brokr. It has broker."),
        ("program:text", "program:text is a str, not a TokenBroker."),
        ("program:make", "program:make is a function, which is not called."),
    ],
)
def test_a_name_without_a_broker_is_one_line(check: Checked, name: str, said: str) -> None:
    """The text is on stderr and has the fix; the exit code is 1."""
    done = check(None, name=name)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"tokenmw check: {said}" in done.stderr


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import nothing_of_this_name", "imports nothing_of_this_name, which is not installed here."),
        (f"\nraise ValueError({SECRET!r})", "cannot be imported: ValueError at broken:2."),
        ("broker = ", "cannot be imported: SyntaxError at line 1."),
    ],
)
def test_a_module_that_raises_is_one_line(tmp_path: Path, source: str, said: str) -> None:
    """The line has the error's class and place, and not its text, which may have a secret."""
    (tmp_path / "broken.py").write_text(source)
    done = run("check", "broken:broker", directory=tmp_path)
    assert (done.returncode, done.stderr) == (1, f"tokenmw check: The module broken {said}\n")


@pytest.mark.parametrize("arguments", [[], ["a:b", "--processes", "0"], ["a:b", "--all"]])
def test_a_wrong_command_line_is_exit_code_64(tmp_path: Path, arguments: list[str]) -> None:
    """2 is a report with warnings, so a wrong command line has another exit code."""
    done = run("check", *arguments, directory=tmp_path)
    assert done.returncode == 64
    assert done.stderr.startswith("usage: tokenmw check")


@pytest.mark.parametrize(
    ("command", "option", "number"),
    [
        ("check", "--processes", "a whole number"),
        ("watch", "--interval", "a number"),
        ("invalidate", "--wait", "a number"),
    ],
)
def test_an_option_that_is_no_number_is_named(
    command: str, option: str, number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The text says what the option takes, and names no function of this package."""
    with pytest.raises(SystemExit) as ended:
        main([command, "a:b", option, "many"])
    assert ended.value.code == 64
    assert capsys.readouterr().err.endswith(f"error: argument {option}: it must be {number}, not 'many'\n")


def test_a_missing_variable_of_the_environment_is_named(tmp_path: Path) -> None:
    """The usual mistake is an environment that is not the program's, so the line has the variable's name."""
    (tmp_path / "program.py").write_text("import os\nos.environ['NO_SUCH_VARIABLE']\n")
    done = run("check", "program:broker", directory=tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        "tokenmw check: The module program needs the environment variable NO_SUCH_VARIABLE, which is not set. "
        "Run the command with the environment of the program.\n"
    )


def test_a_key_that_a_dictionary_does_not_have_is_not_shown(tmp_path: Path) -> None:
    """It may be a secret of the program."""
    (tmp_path / "program.py").write_text(f"{{}}[{SECRET!r}]\n")
    done = run("check", "program:broker", directory=tmp_path)
    assert done.stderr == "tokenmw check: The module program cannot be imported: KeyError at program:1.\n"


def test_each_script_is_tried(check: Checked) -> None:
    """All of them work by their digests, and none of the keys that were tried is left."""
    with RedisServer() as server:
        done = check(server.url)
        left = server.command("KEYS", "*probe-*")
    count = len(SOURCES)
    assert f"{count} of {count} scripts work by EVALSHA" in done.stdout, done.stdout
    assert left == []


def test_a_script_that_does_not_work_fails() -> None:
    """Those that work by their text alone are a warning."""
    facts = ServerFacts("h:1", 0.001, {}, plain=False, scripts=14, failed=["session", "put"])
    (failed,) = (one for one in findings_of(facts, processes=1) if one.result == "FAIL")
    assert "12 of 14 scripts work; not session, put." in failed.text
    facts = ServerFacts("h:1", 0.001, {}, plain=False, scripts=14, by_text=True)
    assert any("EVALSHA does not find" in one.text for one in findings_of(facts, processes=1) if one.result == "WARN")


def test_tls_is_shown_with_the_end_of_the_certificate(check: Checked, tmp_path: Path) -> None:
    """The line has the version and the days that are left; a certificate that is not verified is a warning."""
    files, port = certificates(tmp_path), free_port()
    options = ["--tls-port", str(port), "--tls-cert-file", files.certificate("server")]
    options += ["--tls-key-file", files.key("server"), "--tls-ca-cert-file", files.certificate("ca")]
    try:
        server = RedisServer(*options, "--tls-auth-clients", "no").start()
    except RuntimeError as error:
        if "tls" in str(error).lower():
            pytest.skip("The server was built without TLS")
        raise
    try:
        done = check(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={files.certificate('ca')}")
        unverified = check(f"rediss://127.0.0.1:{port}/0?ssl_cert_reqs=none&ssl_check_hostname=false")
    finally:
        server.stop()
    assert re.search(
        r"WARN +redis +127.0.0.1:\d+: TLSv1.3, its certificate expires in \d+ days\. Renew it", done.stdout
    )
    assert "the server's certificate is not verified" in unverified.stdout
    assert (done.returncode, unverified.returncode) == (2, 2)


def test_a_certificate_with_time_left_is_ok() -> None:
    """Less than three weeks are a warning."""
    with_time = TLSFacts("TLSv1.2", certificate_for(days=60), verified=True)
    short = TLSFacts("TLSv1.2", certificate_for(days=20), verified=True)
    found: dict[TLSFacts, list[str]] = {}
    for tls in (with_time, short):
        facts = ServerFacts("h:1", 0.001, {}, plain=False, tls=tls)
        found[tls] = [one.result for one in findings_of(facts, processes=1) if "TLSv1.2" in one.text]
    assert found == {with_time: ["ok"], short: ["WARN"]}


def test_each_primary_and_replica_of_a_cluster_has_its_maxclients(check: Checked) -> None:
    """Each of two primaries is checked, with its scripts and the connections of all processes."""
    with RedisServer(*CLUSTER, "--maxclients", "100") as one, RedisServer(*CLUSTER, "--maxclients", "5000") as two:
        for server, slots in ((one, (0, 8191)), (two, (8192, 16383))):
            server.command("CLUSTER", "ADDSLOTSRANGE", *slots)
        two.command("CONFIG", "SET", "cluster-announce-ip", "127.0.0.1")
        one.command("CLUSTER", "MEET", "127.0.0.1", two.port)
        deadline = time.monotonic() + 20
        while not all(b"cluster_state:ok" in server.command("CLUSTER", "INFO") for server in (one, two)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        done = check(one.url.replace("redis://", "redis+cluster://").removesuffix("/0"), "--processes", "50")
    assert done.returncode == 2, done.stdout
    assert f"127.0.0.1:{one.port}: maxclients is 100; 50 processes with 4 connections each need 200" in done.stdout
    assert f"127.0.0.1:{two.port}: maxclients is 5000; 50 processes with 4 connections each need 200" in done.stdout
    assert done.stdout.count("scripts work by EVALSHA") == 2


def test_the_store_of_connections_is_read(check: Checked) -> None:
    """A server that loses its data is a warning; so many connections are there."""
    more = (
        f"secret_key={SECRET!r}, connections=Connections("
        '{{"app": OAuthApp(client_id="a", client_secret="canary-of-the-password", issuer="https://idp.example")}}, '
        "store=RedisStore({url!r}), subject=lambda connection: None)"
    )
    with RedisServer() as server:
        done = check(server.url, options=more.format(url=server.url))
    assert done.returncode == 2, done.stdout + done.stderr
    assert re.search(r"ok +connections +RedisStore answers in \S+ ms; it has 0 connections", done.stdout)
    assert re.search(r"WARN +connections +RedisStore: the server loses its data when it restarts", done.stdout)


def certificate_for(*, days: int) -> bytes:
    """Return a certificate, in DER, that expires after some days."""
    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=days, hours=1))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )


def test_plain_tcp_to_another_machine_is_a_warning() -> None:
    """The line names the scheme with TLS."""
    facts = ServerFacts("10.0.0.5:6379", 0.001, {"redis_version": "7.2.0"}, plain=True)
    warned = [one for one in findings_of(facts, processes=1) if one.result == "WARN"]
    assert [("rediss://" in one.text) for one in warned] == [True]


@pytest.mark.sdk
def test_a_client_of_valkey_glide_is_checked_as_a_url_is(check: Checked) -> None:
    """The lines are the same, whichever client a program has."""
    imported("glide")
    with RedisServer() as server:
        by_url = check(server.url)
        given = f"__import__('glide').GlideClientConfiguration([__import__('glide').NodeAddress(port={server.port})])"
        by_glide = check(Source(given))
    assert 0 == by_glide.returncode, by_glide.stdout
    address = f"127.0.0.1:{server.port}"
    assert address in by_url.stdout
    varies = re.compile(r"[\d.]+ m?s$|[\d.]+ ms;|; \d+ are connected now", re.MULTILINE)
    said = [varies.sub("", text) for text in (by_url.stdout, by_glide.stdout)]
    assert said[0] == said[1].replace(f"localhost:{server.port}", address)


class Source(str):
    """Source text of a program, which is not quoted."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)
