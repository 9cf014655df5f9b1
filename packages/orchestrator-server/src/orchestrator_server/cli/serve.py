"""``orchestrator serve``, ``worker`` and ``scheduler``: the processes of a server."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import anyio
import attrs
import click

from orchestrator_core.cli.text import Problem, say
from orchestrator_server import logs
from orchestrator_server.api.serving import listen, make_monitor, make_server
from orchestrator_server.app import Parts, create_app, open_parts
from orchestrator_server.auth import new_key
from orchestrator_server.cli.database import check_there, check_writable, same_database, settings_of, where
from orchestrator_server.cli.output import fresh_line
from orchestrator_server.errors import Unavailable
from orchestrator_server.key_files import key_ring_of
from orchestrator_server.settings import Settings
from orchestrator_server.sql import SqlStorage
from orchestrator_server.sql.database import shown

__all__ = ["scheduler", "serve", "worker"]

_LONGEST_END: Final = 9.5  # seconds from being asked to end: who asks mostly kills after ten
_COLLECT: Final = 20_000  # new containers between two collections of the youngest; Python's own is 700


@click.command()
@where
@click.option("--host", help="The address to listen on. [default: 127.0.0.1]")
@click.option("--port", type=int, help="The port. [default: 8080]")
@click.option("--no-worker", is_flag=True, help="Only accept executions: `orchestrator worker` drives them.")
@click.option("--no-scheduler", is_flag=True, help="Start nothing by schedule: `orchestrator scheduler` does.")
def serve(*, no_worker: bool, no_scheduler: bool, **options: Any) -> None:
    """Serve the API. In the same process executions are driven and schedules started, unless said otherwise.

    Without --database everything is kept in the file orchestrator.db, which is made when it is not there, and so is the key
    that encrypts secrets. At the first start an operator's API key is made and printed, once.
    """
    settings = settings_of(options, host=options["host"], port=options["port"])
    check_writable(settings.database)
    logs.configure(settings)
    # Before anything is made: who forgot that a server runs already shall not find a second database.
    sockets = listen(settings.host, settings.port)
    try:
        first = anyio.run(_begin, settings)
    except BaseException:
        for each in sockets:
            each.close()
        raise
    if first.credential is not None:
        say("The first key of the operator, shown this once:")
        say(f"  {first.credential}")
    if not first.tenants:
        meant = same_database(options, settings)
        say("There is no tenant yet. Next, in another terminal, in this folder:")
        say(f"  orchestrator tenant create acme{meant}")
        say(f"  orchestrator key create --tenant acme --role admin{meant}")

    def ready() -> None:
        _settle()
        say(f"orchestrator: {_url(sockets[0])}/api/v1 (database {shown(settings.database)}); Ctrl-C stops it")
        sys.stdout.flush()

    app = create_app(settings, work=not no_worker, schedule=not no_scheduler)
    sys.stdout.flush()
    with _in_time() as ending:
        server = make_server(app, settings, ready=ready, ending=ending)
        server.run(sockets)
    if not server.started:
        raise Problem("orchestrator serve: it could not begin: see the lines above", exit_code=1)
    _say_stopped()


def _settle() -> None:
    """Let the collector leave alone what is there for good, and look less often: a request makes thousands of objects."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT, 20, 20)


@contextlib.contextmanager
def _in_time() -> Iterator[Callable[[], None]]:
    """Gives what is to be called when an end is asked for: this process ends in time then, whatever goes on in it.

    Code that runs in the sandbox cannot be stopped, and nobody waits any more for what it gives.
    """

    def end() -> None:
        _say_stopped()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)

    timer = threading.Timer(_LONGEST_END, end)
    timer.daemon = True

    def begin() -> None:
        if not timer.is_alive():
            timer.start()

    try:
        yield begin
    finally:
        timer.cancel()


def _say_stopped() -> None:
    fresh_line(sys.stdout)
    say("orchestrator: stopped")


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@attrs.frozen
class _First:
    """What is new to a person who starts a server: the operator's key, where it was made now; whether there are tenants."""

    credential: str | None
    tenants: bool


async def _begin(settings: Settings) -> _First:
    """Make what a server needs and has not: the key that encrypts, the database, a key for the operator."""
    await key_ring_of(settings)
    settings.jwt_settings()
    storage = await SqlStorage.open(settings.database, isolation=settings.isolation)
    try:
        tenants = bool(await storage.tenants.list(limit=1))
        if await storage.keys.list(None):
            return _First(None, tenants)
        key, credential = new_key(None, "admin", name="first", now=await storage.now())
        await storage.keys.create(key)
        return _First(credential, tenants)
    finally:
        await storage.aclose()


def _metrics_port(command: Callable[..., Any]) -> Callable[..., Any]:
    what = "A port where /metrics, /health and /ready are answered. [default: none]"
    return click.option("--metrics-port", type=int, help=what)(command)


@click.command()
@where
@click.option("--concurrency", type=int, help="Executions at one time. [default: 100]")
@_metrics_port
def worker(**options: Any) -> None:
    """Drive executions until it is asked to end (SIGTERM or Ctrl-C); what it held goes back to the queue then."""
    settings = settings_of(options, concurrency=options["concurrency"], metrics_port=options["metrics_port"])
    _run_parts(settings, lambda parts: (parts.worker.run, parts.worker.stop))


@click.command()
@where
@_metrics_port
def scheduler(**options: Any) -> None:
    """Start executions by schedule until it is asked to end. Of several, each slot is started by one."""
    settings = settings_of(options, metrics_port=options["metrics_port"])
    _run_parts(settings, lambda parts: (parts.scheduler.run, parts.scheduler.stop))


Runnable = tuple[Callable[[], Awaitable[None]], Callable[[], None]]


def _run_parts(settings: Settings, choose: Callable[[Parts], Runnable]) -> None:
    check_there(settings.database)
    check_writable(settings.database)
    logs.configure(settings)
    # As with `serve`: before anything begins.
    sockets = _listen_for_monitor(settings)

    async def main() -> None:
        async with open_parts(settings) as parts, anyio.create_task_group() as group:
            run, stop = choose(parts)
            monitor = make_monitor(parts)
            if sockets:
                group.start_soon(monitor.serve, sockets)

            def end() -> None:
                ending()
                monitor.should_exit = True
                stop()

            group.start_soon(_until_asked, end, group.cancel_scope)
            _settle()
            say(f"orchestrator: at work (database {shown(settings.database)}); Ctrl-C stops it")
            sys.stdout.flush()
            await run()
            group.cancel_scope.cancel()

    try:
        with _in_time() as ending:
            anyio.run(main)
    finally:
        for each in sockets:
            each.close()
    _say_stopped()


def _listen_for_monitor(settings: Settings) -> list[socket.socket]:
    """The sockets on which a process without an API is watched; none where no port was said.

    Raises:
        Unavailable: The port is taken.
    """
    if not settings.metrics_port:
        return []
    try:
        return listen(settings.host, settings.metrics_port)
    except Unavailable as error:
        what = str(error).rpartition(": ")[0]  # what follows speaks of the port of the API
        raise Unavailable(f"{what}: choose another port with --metrics-port") from None


async def _until_asked(stop: Callable[[], None], scope: Any) -> None:
    """Ask for the end on the first signal; a second one does not wait for it."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        count = 0
        async for _ in signals:
            count += 1
            if count > 1:
                scope.cancel()
            stop()
