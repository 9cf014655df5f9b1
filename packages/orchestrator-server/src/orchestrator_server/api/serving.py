"""Serving the application: uvicorn, with a time-out for request heads, which it does not have."""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from orchestrator_server.app import App
from orchestrator_server.settings import Settings

__all__ = ["make_server", "patient"]

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


def make_server(app: App, settings: Settings) -> uvicorn.Server:
    """A server for the application, which :meth:`uvicorn.Server.run` runs until it is asked to end."""
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=patient(AutoHTTPProtocol, settings.header_timeout),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=settings.connections,
        timeout_keep_alive=_IDLE,
        timeout_graceful_shutdown=_GRACE,
    )
    return uvicorn.Server(config)
