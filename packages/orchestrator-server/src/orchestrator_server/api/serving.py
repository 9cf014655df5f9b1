"""Serving the application: uvicorn, with a time-out for request heads, which it does not have."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final, Literal

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from orchestrator_server.api.dispatch import make_router
from orchestrator_server.api.routes import ROUTES
from orchestrator_server.app import App, Parts, make_services
from orchestrator_server.settings import Settings

__all__ = ["MONITORED", "Server", "make_monitor", "make_server", "patient"]

MONITORED: Final = frozenset({"/health", "/ready", "/metrics"})
"""What a process without an API answers."""

_GRACE = 8  # seconds for requests that are being answered when the server is asked to end
_IDLE = 15  # seconds that a connection without a request is kept


def patient(base: Any, seconds: float) -> type[asyncio.Protocol]:
    """A protocol of uvicorn that closes connections whose request's head does not come within some seconds.

    Args:
        base: The class of the protocol.
        seconds: How long a head may take, from the connection or its first byte on.
    """

    class Patient(base):  # type: ignore[misc]  # uvicorn chooses its class at run time
        """Closes a connection that sends its head too slowly."""

        _head: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait_for_head()

        def data_received(self, data: bytes) -> None:
            before = self.cycle
            super().data_received(data)
            if self.cycle is not before:
                self._head_came()
            elif self.cycle is None or self.cycle.response_complete:
                self._wait_for_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._head_came()
            super().connection_lost(exc)

        def _wait_for_head(self) -> None:
            if self._head is None:
                self._head = self.loop.call_later(seconds, self._too_slow)

        def _head_came(self) -> None:
            if self._head is not None:
                self._head.cancel()
                self._head = None

        def _too_slow(self) -> None:
            self._head = None
            if not self.transport.is_closing():
                self.transport.close()

    return Patient


class Server(uvicorn.Server):
    """A server that tells its application when an end is asked for, and then ends well: with the exit code 0.

    Args:
        config: As of uvicorn.
        drain: Called when an end is asked for, before requests are waited for.
        signals: Whether signals ask for it, or only ``should_exit``.
    """

    def __init__(self, config: uvicorn.Config, drain: Callable[[], None], *, signals: bool = True) -> None:
        super().__init__(config)
        self._drain = drain
        self._signals = signals

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """See uvicorn, which would raise the signal once more in the end."""
        super().handle_exit(sig, frame)
        self._captured_signals.clear()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """See uvicorn."""
        with super().capture_signals() if self._signals else contextlib.nullcontext():
            yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        self._drain()
        await super().shutdown(sockets)


def make_server(app: App, settings: Settings) -> Server:
    """A server for the application, which :meth:`uvicorn.Server.run` runs until it is asked to end."""
    return Server(_config(app, settings, settings.port, lifespan="on"), app.drain)


def make_monitor(parts: Parts) -> Server:
    """A server for a process without an API: it answers ``/metrics``, ``/health`` and ``/ready``, and leaves signals alone.

    Run it with :meth:`uvicorn.Server.serve`; whoever does sets ``should_exit``.
    """
    services = make_services(parts, {})
    router = make_router([route for route in ROUTES if route.path in MONITORED], services)

    def drain() -> None:
        services.draining = True

    return Server(_config(router, parts.settings, parts.settings.metrics_port, lifespan="off"), drain, signals=False)


def _config(app: Any, settings: Settings, port: int, *, lifespan: Literal["on", "off"]) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=settings.host,
        port=port,
        http=patient(AutoHTTPProtocol, settings.header_timeout),
        ws="none",
        lifespan=lifespan,
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=settings.connections,
        timeout_keep_alive=_IDLE,
        timeout_graceful_shutdown=_GRACE,
    )
