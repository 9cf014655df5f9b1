"""Wakes whoever waits for work: in this process at once, in others through PostgreSQL's notifications."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from orchestrator_server.sql.hop import Reply, Threads, answer

__all__ = ["Bell"]

_CHANNEL = "orchestrator_work"
_AGAIN = 2.0  # seconds until it connects again


class Bell:
    """One for each storage.

    A notification is sent by a transaction of its own, after the one that made something due, and once for all that ring
    meanwhile: within it, it would take a lock that all commits of the database share. If the process dies between the
    two, polling finds it.
    """

    def __init__(self, engine: sa.Engine, threads: Threads) -> None:
        self._engine = engine
        self._threads = threads
        self._remote = engine.dialect.name == "postgresql"
        self._waiting: set[Reply] = set()
        self._lock = threading.Lock()
        self._listener: threading.Thread | None = None
        self._sending = False
        self._closed = False
        # To close the first wakes the listener, which has the other.
        self._ends: tuple[socket.socket, ...] = socket.socketpair() if self._remote else ()

    def ring(self) -> None:
        """Something may be due."""
        self._ring_here()
        if not self._remote:
            return
        with self._lock:
            if self._sending or self._closed:
                return
            self._sending = True
        self._threads.start(self._send)

    async def wait(self) -> None:
        """Return when somebody rings."""
        reply = Reply()
        with self._lock:
            self._waiting.add(reply)
            if self._remote and self._listener is None and not self._closed:
                self._listener = threading.Thread(target=self._listen, name="orchestrator-bell", daemon=True)
                self._listener.start()
        try:
            await reply.wait()
        finally:
            with self._lock:
                self._waiting.discard(reply)

    def close(self) -> None:
        """End the listener. Blocks until then."""
        with self._lock:
            self._closed = True
            listener = self._listener
        if listener is not None:
            self._ends[0].close()
            listener.join()
        for end in self._ends:
            end.close()

    def _ring_here(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, set()
        answer((reply, None, None) for reply in waiting)

    def _send(self) -> None:
        with self._lock:
            self._sending = False  # from now on somebody else's work is not covered by this one
        with contextlib.suppress(exc.SQLAlchemyError), self._engine.begin() as connection:
            connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
            connection.exec_driver_sql(f"NOTIFY {_CHANNEL}")

    def _listen(self) -> None:
        while not self._closed:
            try:
                with self._engine.connect() as pooled:
                    try:
                        self._listen_on(pooled.connection.driver_connection)
                    finally:
                        pooled.invalidate()  # it listens: nobody else is to have it
            except Exception:  # noqa: BLE001 - without it there is polling; it comes back when the database does
                until = time.monotonic() + _AGAIN
                while not self._closed and time.monotonic() < until:
                    time.sleep(0.05)

    def _listen_on(self, connection: Any) -> None:
        connection.rollback()
        connection.autocommit = True
        connection.execute(f"LISTEN {_CHANNEL}")
        self._ring_here()  # whatever was sent while nobody listened
        with selectors.DefaultSelector() as selector:
            selector.register(connection, selectors.EVENT_READ)
            selector.register(self._ends[1], selectors.EVENT_READ)
            while not self._closed:
                for _ in connection.notifies(timeout=0):
                    self._ring_here()
                selector.select()
