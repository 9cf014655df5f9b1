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
from typing import Final

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
from orchestrator_server.auth import Authenticator
from orchestrator_server.realms import Realms
from orchestrator_server.scheduler import Scheduler
from orchestrator_server.sealing import Sealer
from orchestrator_server.settings import Settings
from orchestrator_server.sql import SqlStorage
from orchestrator_server.storage import Storage
from orchestrator_server.worker import Worker

__all__ = ["App", "Parts", "create_app", "open_parts"]

DISTRIBUTION: Final = "pluggable-orchestrator-server"


@attrs.define(eq=False)
class Parts:
    """What runs in one process. ``worker`` accepts executions also where it does not drive any."""

    settings: Settings
    storage: Storage
    engine: Engine
    realms: Realms
    sealer: Sealer
    worker: Worker
    scheduler: Scheduler


@contextlib.asynccontextmanager
async def open_parts(settings: Settings, *, storage: Storage | None = None) -> AsyncIterator[Parts]:
    """Open the database and the engine, and close them again.

    Args:
        settings: The settings.
        storage: A storage that is open already, and stays open.

    Raises:
        Invalid: A setting cannot be used.
        SchemaVersion: The database has another schema; the text says what to run.
        Unavailable: The database does not answer.
    """
    # A key is only made for a database of our own: whoever brings a storage has keys that belong to it.
    ring = settings.key_ring(make=storage is None)
    sealer = Sealer(ring.keys, ring.current)
    owned = storage is None
    used: Storage = (
        storage if storage is not None else await SqlStorage.open(settings.database, isolation=settings.isolation)
    )
    try:
        async with Engine(http=HttpPolicy(allow=settings.allow_addresses)) as engine:
            realms = Realms(engine, used, sealer)
            worker = Worker(
                engine,
                realms,
                used,
                name=f"{socket.gethostname()[:32]}-{os.getpid()}-{secrets.token_hex(3)}",
                concurrency=settings.concurrency,
                lease=settings.lease,
            )
            yield Parts(settings, used, engine, realms, sealer, worker, Scheduler(used, realms))
    finally:
        if owned:
            with anyio.CancelScope(shield=True):
                await used.aclose()


class App:
    """The server as an ASGI application. Made by :func:`create_app`."""

    def __init__(self, settings: Settings, storage: Storage | None, *, work: bool, schedule: bool) -> None:
        self.settings = settings
        self.parts: Parts | None = None
        self.document: Mapping[str, Json] = make_document(ROUTES, version(DISTRIBUTION))
        self._storage = storage
        self._work = work
        self._schedule = schedule
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
        async with open_parts(self.settings, storage=self._storage) as parts:
            self.parts = parts
            self._served = self._services(parts)
            self._router = make_router(ROUTES, self._served)
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
                self._router = self._served = self.parts = None

    def end_streams(self) -> None:
        """End the event streams, each within a second: for servers that wait until every answer is complete."""
        if self._served is not None:
            self._served.ending = True

    def _services(self, parts: Parts) -> Services:
        settings = self.settings
        return Services(
            storage=parts.storage,
            engine=parts.engine,
            realms=parts.realms,
            worker=parts.worker,
            sealer=parts.sealer,
            authenticator=Authenticator(parts.storage.keys, jwt=settings.jwt_settings()),
            limits=ApiLimits(body=settings.body_limit, body_time=settings.body_timeout, wait=settings.wait),
            metrics_public=settings.metrics_public,
            document=self.document,
        )

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
    settings: Settings | None = None, *, storage: Storage | None = None, work: bool = True, schedule: bool = True
) -> App:
    """The server as an ASGI application.

    Args:
        settings: The settings; the defaults unless given. Nothing is read from the environment here.
        storage: A storage that is open already, instead of the database that the settings name.
        work: Whether it drives executions itself.
        schedule: Whether it starts what is scheduled.
    """
    return App(settings if settings is not None else Settings(), storage, work=work, schedule=schedule)
