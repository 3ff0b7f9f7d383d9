"""Hints beside valkey-glide: redis-py's connection has what the program has configured for Glide."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.broker.hints import SECRET, listeners, pair
from tests.faults.certificates import Certificates, certificates
from tests.faults.test_connection_options import tls_server
from tests.ports import free_port
from tests.redis.glides import configuration, glide
from tests.redis.waiting import until
from tokenmw import Limits, TokenBroker
from tokenmw.redis.acl import ACL_RULES
from tokenmw.redis.errors import Unsuitable
from tokenmw.redis.glide.subscriber import open_subscriber

if TYPE_CHECKING:
    from tests.servers import RedisServer

pytestmark = pytest.mark.sdk
LIMITS = Limits()
QUICK = 2.0  # seconds; a check without hints takes 30 s


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """The certificates of this test run."""
    return certificates(tmp_path_factory.mktemp("certificates"))


async def test_processes_with_either_client_hear_from_each_other(redis_server: RedisServer) -> None:
    """A token that one of them invalidates is dropped by the other one, in both directions."""
    async with pair(redis_server, redis=configuration(redis_server.port)) as (first, second):
        await first.invalidate()
        await second.loses_its_token(within=QUICK)
        assert "second" == await first.value() == await second.value()
        first.dropped.clear()
        await second.invalidate()
        await first.loses_its_token(within=QUICK)


async def test_a_user_of_an_acl_has_hints(private_redis: RedisServer) -> None:
    """The rights that the guide names are enough for Glide's connection and for the listener."""
    rules = ACL_RULES.replace("<namespace>", "tokenmw").split()
    private_redis.command("ACL", "SETUSER", "app", "on", ">pass-w0rd", "resetchannels", "-@all", *rules)
    credentials = glide().ServerCredentials("pass-w0rd", "app")
    given = configuration(private_redis.port, credentials=credentials)
    async with pair(private_redis, redis=given) as (first, second):
        await first.invalidate()
        await second.loses_its_token(within=QUICK)
        assert "up" == second.broker.status().shared


async def test_tls_with_a_client_certificate_is_for_both_connections(files: Certificates) -> None:
    """The certificates of Glide's configuration are those of the listener."""
    module, port = glide(), free_port()
    server = tls_server(files, "server", port=port)
    try:
        tls = module.TlsAdvancedConfiguration(
            root_pem_cacerts=Path(files.certificate("ca")).read_bytes(),  # noqa: ASYNC240  the file is small
            client_cert_path=files.certificate("client"),
            client_key_path=files.key("client"),
        )
        advanced = module.AdvancedGlideClientConfiguration(tls_config=tls)
        given = configuration(port, use_tls=True, advanced_config=advanced)
        async with TokenBroker({}, redis=given, secret_key=SECRET) as broker:
            assert "up" == broker.status().shared
            await until(lambda: listeners(server) == 1, within=5)
    finally:
        server.stop()


def test_certificates_are_not_checked_if_the_program_says_so() -> None:
    """The listener is as strict as Glide, and not stricter."""
    module = glide()
    tls = module.TlsAdvancedConfiguration(use_insecure_tls=True)
    advanced = module.AdvancedGlideClientConfiguration(tls_config=tls)
    options = _options(use_tls=True, advanced_config=advanced)
    assert ("none", False) == (options["ssl_cert_reqs"], options["ssl_check_hostname"])
    assert {"ssl_cert_reqs", "ssl_check_hostname"}.isdisjoint(_options(use_tls=True))


def test_an_address_resolver_is_used_for_the_listener() -> None:
    """One that fails leaves the address as it is, as Glide does."""

    def fails(host: str, port: int) -> tuple[str, int]:
        raise OSError(host, port)

    assert ("10.0.0.7", 7) == _host(_options(address_resolver=lambda _host, _port: ("10.0.0.7", 7)))
    assert ("127.0.0.1", 1) == _host(_options(address_resolver=fails))


def test_a_socket_is_used_for_the_listener() -> None:
    """Glide's address has its path."""
    module = glide()
    given = module.GlideClientConfiguration([module.NodeAddress(unix_socket_path="/run/redis.sock")])
    assert "/run/redis.sock" == open_subscriber(given, limits=LIMITS).connection_pool.connection_kwargs["path"]


async def test_what_redis_py_cannot_do_is_logged_with_the_fix(caplog: pytest.LogCaptureFixture) -> None:
    """Everything else works, and what is lost is said: tokens are compared every 30 s."""
    module = glide()
    tls = module.TlsAdvancedConfiguration(client_cert_pem=b"x", client_key_pem=b"y")
    iam = module.IamAuthConfig("cluster", module.ServiceType.ELASTICACHE, "eu-central-1")
    with pytest.raises(Unsuitable) as caught:
        _options(credentials=module.ServerCredentials(username="app", iam_config=iam))
    assert "IAM" in caught.value.fix
    advanced = module.AdvancedGlideClientConfiguration(tls_config=tls)
    given = configuration(1, use_tls=True, advanced_config=advanced)
    limits = Limits(connect_seconds=0.2)
    async with TokenBroker({}, redis=given, secret_key=SECRET, limits=limits):
        await until(lambda: any("Hints off" in message for message in caplog.messages), within=5)
    (line,) = [message for message in caplog.messages if "Hints off" in message]
    assert "client_cert_path and client_key_path" in line
    assert line.endswith("tokens that other processes invalidate are used for up to 30 s")


def _options(**options: Any) -> dict[str, Any]:
    pool = open_subscriber(configuration(1, **options), limits=LIMITS).connection_pool
    return dict(pool.connection_kwargs)


def _host(options: dict[str, Any]) -> tuple[str, int]:
    return options["host"], options["port"]
