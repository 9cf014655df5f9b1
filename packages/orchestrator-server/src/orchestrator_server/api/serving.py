"""Serving the application: uvicorn, with limits for request heads and for readers, which it does not have.

Signals end it quietly: a server that was asked to end has done nothing wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any, Final, Literal

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from orchestrator_core.codec import dump_json
from orchestrator_server.api.dispatch import make_router
from orchestrator_server.api.problems import ErrorBody
from orchestrator_server.api.routes import ROUTES
from orchestrator_server.app import App, Parts, make_services
from orchestrator_server.errors import Unavailable
from orchestrator_server.settings import Settings

__all__ = ["MONITORED", "Server", "listen", "make_monitor", "make_server", "patient"]

MONITORED: Final = frozenset({"/health", "/ready", "/metrics"})
"""What a process without an API answers."""

_GRACE = 8  # seconds for requests that are being answered when the server is asked to end
_IDLE = 15  # seconds that a connection without a request is kept
_STUCK = 30  # seconds that an answer waits for somebody who takes nothing of it
_LONGEST_HEAD = 65_536  # bytes


_BASE: Any = AutoHTTPProtocol
# Whether it tells what is complete; h11 does not, and has a limit for heads of its own.
_TELLS = hasattr(_BASE, "on_body")


class _Patient(_BASE):  # type: ignore[misc]  # uvicorn chooses its class at run time
    """Closes a connection that sends its head too slowly or without end, or that does not read its answer."""

    seconds = 10.0  # for a head
    most = 1000  # connections at one time
    _head: asyncio.TimerHandle | None = None
    _stuck: asyncio.TimerHandle | None = None
    _loose = 0  # bytes since a head, a part of a body or a request was complete

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        self._loose += len(data)
        super().data_received(data)
        if self.cycle is not before:
            self._head_came()
        elif self.cycle is None or self.cycle.response_complete:
            self._wait_for_head()
        if _TELLS and self._loose > _LONGEST_HEAD and not self.transport.is_closing():
            self._refuse(
                431, "too_large", f"the head of a request, or what follows its body, may have {_LONGEST_HEAD} bytes"
            )

    def on_headers_complete(self) -> None:
        self._loose = 0
        crowded = max(len(self.connections), len(self.tasks)) >= self.most
        self.app = _crowded if crowded else self.config.loaded_app
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._loose = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._loose = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "bad_request", msg)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait_for_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._reader_came()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._wait_for_reader()  # there may be an answer left that it does not take

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        self._reader_came()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        if self._head is None:
            self._head = self.loop.call_later(self.seconds, self._too_slow)

    def _head_came(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _too_slow(self) -> None:
        self._head = None
        if not self.transport.is_closing():
            self.transport.close()
        self._wait_for_reader()

    def _wait_for_reader(self) -> None:
        if self._stuck is None:
            self._stuck = self.loop.call_later(_STUCK, self.transport.abort)

    def _reader_came(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer what is no request, and close."""
        body = _error(code, message)
        phrase = HTTPStatus(status).phrase
        head = f"HTTP/1.1 {status} {phrase}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self.transport.write(f"{head}Connection: close\r\n\r\n".encode() + body)
        self.transport.close()
        self._wait_for_reader()


def _error(code: str, message: str) -> bytes:
    return dump_json(ErrorBody(message, code).to_json()).encode()


async def _crowded(_: Any, __: Any, send: Any) -> None:
    """The application where there are too many connections."""
    body = _error("unavailable", "there are too many connections: ask again in a moment")
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "retry-after": "1",
        "connection": "close",
    }
    told = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 503, "headers": told})
    await send({"type": "http.response.body", "body": body})


def patient(seconds: float, most: int) -> type[asyncio.Protocol]:
    """A protocol of uvicorn that gives up connections which hold it up: in time, and in bytes that lead to nothing.

    Args:
        seconds: How long a head may take, from the connection or its first byte on.
        most: How many connections there may be; further ones are answered with 503.
    """
    return type("Patient", (_Patient,), {"seconds": seconds, "most": most})


class Server(uvicorn.Server):
    """A server that tells its application when an end is asked for, and then returns.

    Args:
        config: As of uvicorn.
        drain: Called when an end is asked for, before requests are waited for.
        ready: Called once, when requests are answered.
        signals: Whether SIGINT and SIGTERM ask for it, or only ``should_exit``.
    """

    def __init__(
        self, config: uvicorn.Config, drain: Callable[[], None], ready: Callable[[], None], *, signals: bool = True
    ) -> None:
        super().__init__(config)
        self._drain = drain
        self._ready = ready
        self._signals = signals

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See :meth:`uvicorn.Server.startup`."""
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See :meth:`uvicorn.Server.shutdown`."""
        self._drain()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ask for the end on a signal; unlike uvicorn's it does not raise the signal again afterwards."""
        if not self._signals or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def listen(host: str, port: int) -> list[socket.socket]:
    """The sockets of an address: bound, so that nobody else has them, and not listening yet.

    Args:
        host: A name or an address; a name may stand for several.
        port: The port; 0: a free one.

    Raises:
        Unavailable: The port is taken, or the address is not of this machine.
    """
    where = f"{host}:{port}"
    bound: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            made = socket.socket(family, kind, protocol)
            try:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                made.bind((address[0], bound[0].getsockname()[1] if bound else port, *address[2:]))
            except OSError:
                made.close()
                raise
            bound.append(made)
    except OSError as error:
        for made in bound:
            made.close()
        if error.errno == errno.EADDRINUSE:
            text = f"{where} is taken: end what listens there, or choose another port with --port"
        else:
            text = f"{where} cannot be listened on: {error.strerror or error}: see --host and --port"
        raise Unavailable(text) from None
    return bound


def make_server(
    app: App,
    settings: Settings,
    *,
    ready: Callable[[], None] = lambda: None,
    ending: Callable[[], None] = lambda: None,
) -> Server:
    """A server for the application, which :meth:`uvicorn.Server.run` runs until it is asked to end.

    Args:
        app: The application.
        settings: How long requests may take, and how many there may be.
        ready: Called once, when requests are answered.
        ending: Called once, when it was asked to end.
    """

    def drain() -> None:
        ending()
        app.drain()

    return Server(_config(app, settings, settings.port, lifespan="on"), drain, ready)


def make_monitor(parts: Parts) -> Server:
    """A server for a process without an API: it answers ``/metrics``, ``/health`` and ``/ready``, and leaves signals alone.

    Run it with :meth:`uvicorn.Server.serve`; whoever does sets ``should_exit``.
    """
    services = make_services(parts, {})
    router = make_router([route for route in ROUTES if route.path in MONITORED], services)

    def drain() -> None:
        services.draining = True

    config = _config(router, parts.settings, parts.settings.metrics_port, lifespan="off")
    return Server(config, drain, lambda: None, signals=False)


def _config(app: Any, settings: Settings, port: int, *, lifespan: Literal["on", "off"]) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=settings.host,
        port=port,
        http=patient(settings.header_timeout, settings.connections),
        ws="none",
        lifespan=lifespan,
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=None if _TELLS else settings.connections,
        timeout_keep_alive=_IDLE,
        timeout_graceful_shutdown=_GRACE,
    )
