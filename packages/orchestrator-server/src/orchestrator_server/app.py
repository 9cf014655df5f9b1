"""The application: what the API, the worker and the scheduler share, and how it begins and ends.

:func:`create_app` gives an ASGI application. On its own it begins with the server (``lifespan``); mounted in another
application, which is not told of that, its :meth:`App.running` is entered by the host.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import AsyncIterator, Mapping
from importlib.metadata import version
from typing import Any, Final

import anyio
import attrs
from starlette.responses import JSONResponse
from starlette.routing import Router
from starlette.types import Receive, Scope, Send

from orchestrator_core import Engine, HttpPolicy
from orchestrator_core.errors import OrchestratorError
from orchestrator_core.types import Json
from orchestrator_server.api.dispatch import make_router
from orchestrator_server.api.openapi import make_document
from orchestrator_server.api.routes import ROUTES
from orchestrator_server.api.table import ApiLimits, Services
from orchestrator_server.approvals import ApprovalLinks
from orchestrator_server.auth import Authenticator
from orchestrator_server.errors import Invalid
from orchestrator_server.key_files import key_ring_of
from orchestrator_server.metrics import Metrics
from orchestrator_server.realms import Realms
from orchestrator_server.scheduler import Scheduler
from orchestrator_server.sealing import Sealer
from orchestrator_server.settings import Settings
from orchestrator_server.sql import SqlStorage
from orchestrator_server.storage import Storage
from orchestrator_server.tracing import Tracing
from orchestrator_server.worker import Worker

__all__ = ["App", "Parts", "create_app", "make_services", "open_parts"]

DISTRIBUTION: Final = "pluggable-orchestrator-server"


@attrs.define(eq=False)
class Parts:
    """What runs in one process. ``worker`` accepts executions also where it does not drive any."""

    settings: Settings
    storage: Storage
    engine: Engine
    realms: Realms
    sealer: Sealer
    links: ApprovalLinks
    worker: Worker
    scheduler: Scheduler


@contextlib.asynccontextmanager
async def open_parts(
    settings: Settings, *, storage: Storage | None = None, tracer_provider: Any = None
) -> AsyncIterator[Parts]:
    """Open the database and the engine, and close them again.

    Args:
        settings: The settings.
        storage: A storage that is open already, and stays open.
        tracer_provider: OpenTelemetry's, where spans go; without one they go where the settings say.

    Raises:
        Invalid: A setting cannot be used.
        SchemaVersion: The database has another schema; the text says what to run.
        Unavailable: The database does not answer.
    """
    # A key is only made for a database of our own: whoever brings a storage has keys that belong to it.
    ring = await key_ring_of(settings) if storage is None else settings.key_ring()
    sealer = Sealer(ring.keys, ring.current)
    links = ApprovalLinks(ring, settings.address)
    metrics = Metrics()
    name = f"{socket.gethostname()[:32]}-{os.getpid()}-{secrets.token_hex(3)}"
    async with contextlib.AsyncExitStack() as stack:
        tracing = await stack.enter_async_context(_tracing(settings, tracer_provider, name))
        if storage is not None:
            used = storage
        else:
            used = await SqlStorage.open(settings.database, isolation=settings.isolation, meter=metrics.commit)
            stack.push_async_callback(_close, used)
        http = HttpPolicy(allow=settings.allow_addresses)
        engine = await stack.enter_async_context(Engine(http=http, plugins=[] if tracing is None else [tracing]))
        realms = Realms(
            engine, used, sealer, links=links, metrics=metrics, tracing=tracing, most_items=settings.for_each_limit
        )
        worker = Worker(engine, realms, used, name=name, concurrency=settings.concurrency, lease=settings.lease)
        yield Parts(settings, used, engine, realms, sealer, links, worker, Scheduler(used, realms))


async def _close(storage: Storage) -> None:
    with anyio.CancelScope(shield=True):
        await storage.aclose()


@contextlib.asynccontextmanager
async def _tracing(settings: Settings, provider: Any, name: str) -> AsyncIterator[Tracing | None]:
    """Where spans go, if anywhere. Nothing of OpenTelemetry is imported where they go nowhere."""
    if provider is None and not settings.traces:
        yield None
        return
    try:
        from orchestrator_server import otel  # noqa: PLC0415 - see above
    except ImportError as error:
        raise Invalid(
            "traces: OpenTelemetry is not installed: pip install 'pluggable-orchestrator-server[otel]', or say traces = false"
        ) from error
    if provider is not None:
        yield otel.Spans(provider)
        return
    own = otel.open_provider(name, version(DISTRIBUTION))
    try:
        yield otel.Spans(own)
    finally:
        await otel.close_provider(own)


def make_services(parts: Parts, document: Mapping[str, Json]) -> Services:
    """What the handlers of an API work with."""
    settings = parts.settings
    return Services(
        storage=parts.storage,
        engine=parts.engine,
        realms=parts.realms,
        worker=parts.worker,
        sealer=parts.sealer,
        links=parts.links,
        authenticator=Authenticator(parts.storage.keys, jwt=settings.jwt_settings()),
        limits=ApiLimits(
            body=settings.body_limit,
            document=max(settings.document_limit, settings.body_limit),
            body_time=settings.body_timeout,
            wait=settings.wait,
        ),
        metrics=parts.realms.metrics,
        metrics_public=settings.metrics_public,
        tracing=parts.realms.tracing,
        document=document,
    )


class App:
    """The server as an ASGI application. Made by :func:`create_app`."""

    def __init__(
        self, settings: Settings, storage: Storage | None, *, work: bool, schedule: bool, tracer_provider: Any = None
    ) -> None:
        self.settings = settings
        self.parts: Parts | None = None
        self.document: Mapping[str, Json] = make_document(ROUTES, version(DISTRIBUTION))
        self._storage = storage
        self._work = work
        self._schedule = schedule
        self._tracer_provider = tracer_provider
        self._services: Services | None = None
        self._router: Router | None = None
        self._served: Services | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif self._router is not None:
            await self._router(scope, receive, send)
        elif scope["type"] == "http":
            body = {"message": "the server has not begun, or is ending: ask again in a moment", "code": "not_running"}
            await JSONResponse(body, 503, {"Retry-After": "2"})(scope, receive, send)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Parts]:
        """Begin, and end again: for applications that this one is mounted in.

        Raises:
            OrchestratorError: It runs already; or as :func:`open_parts`.
        """
        if self.parts is not None:
            raise OrchestratorError("this application runs already: enter `running` once")
        opened = open_parts(self.settings, storage=self._storage, tracer_provider=self._tracer_provider)
        async with opened as parts:
            self.parts = parts
            self._services = make_services(parts, self.document)
            self._router = make_router(ROUTES, self._services)
            try:
                async with anyio.create_task_group() as group:
                    if self._work:
                        group.start_soon(parts.worker.run)
                    if self._schedule:
                        group.start_soon(parts.scheduler.run)
                    try:
                        yield parts
                    finally:
                        parts.worker.stop()
                        parts.scheduler.stop()
            finally:
                self._router = self._services = self.parts = None

    def drain(self) -> None:
        """Take nothing new: an end has been asked for, and is to come within some seconds.

        Work goes back to the queue, ``/ready`` says no, streams end, and requests that wait for an execution are answered
        202 soon. Who has not called this before leaving :meth:`running` only waits a little longer there.
        """
        if self._services is not None and self.parts is not None:
            self._services.draining = True
            self.parts.worker.stop()
            self.parts.scheduler.stop()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        begun = False
        try:
            async with self.running():
                begun = True
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except Exception as error:
            kind = "lifespan.shutdown.failed" if begun else "lifespan.startup.failed"
            await send({"type": kind, "message": str(error)})
            if begun or not isinstance(error, OrchestratorError):
                raise
            return
        await send({"type": "lifespan.shutdown.complete"})


def create_app(
    settings: Settings | None = None,
    *,
    storage: Storage | None = None,
    work: bool = True,
    schedule: bool = True,
    tracer_provider: Any = None,
) -> App:
    """The server as an ASGI application.

    Args:
        settings: The settings; the defaults unless given. Nothing is read from the environment here.
        storage: A storage that is open already, instead of the database that the settings name.
        work: Whether it drives executions itself.
        schedule: Whether it starts what is scheduled.
        tracer_provider: A provider of OpenTelemetry (the extra ``otel``) to which spans go, instead of where the settings say.
    """
    used = settings if settings is not None else Settings()
    return App(used, storage, work=work, schedule=schedule, tracer_provider=tracer_provider)
