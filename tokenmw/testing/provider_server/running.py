"""The test server over real HTTP, in its own thread."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any

from tokenmw.errors import ConfigurationError
from tokenmw.testing.provider_server.endpoint import ABORT

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Generator

    from starlette.types import ASGIApp

    from tokenmw.testing.provider_server.tls import TLSFiles

__all__ = ["running_app"]

_START_SECONDS = 10.0


@contextlib.contextmanager
def running_app(app: ASGIApp, *, tls: TLSFiles | None = None) -> Generator[str]:
    """Serve an application over HTTP, with TLS if it has files, on a free port of this machine; yield its base URL.

    Raises:
        ConfigurationError: uvicorn is not installed.
    """
    try:
        import uvicorn
        from uvicorn.protocols.http.h11_impl import H11Protocol
    except ImportError:
        raise ConfigurationError(
            "ProviderServer.running() needs uvicorn: pip install 'tokenmw[demo]'. "
            "Without it, ProviderServer.transport() serves a client in the same process."
        ) from None

    class Protocol(H11Protocol):
        """Lets the application close its connection. No access log: URLs may contain secrets."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.access_log = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.app_state = {**self.app_state, ABORT: transport.abort}

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            started.set()

    started = threading.Event()
    # log_config=None: the logging of the test run must not be changed.
    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        timeout_graceful_shutdown=5,
        # Otherwise a client on a slow machine sends to a connection that is just being closed, and its test fails.
        timeout_keep_alive=3600,
        ssl_certfile=None if tls is None else tls.cert_file,
        ssl_keyfile=None if tls is None else tls.key_file,
    )
    server = Server(config)
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [listener]}, name="tokenmw-provider-server", daemon=True
    )
    thread.start()
    try:
        if not started.wait(_START_SECONDS):
            raise RuntimeError(f"The test server did not start within {_START_SECONDS:.0f} s.")
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
