"""One database: its engine, its transactions, its writer.

Every transaction says for whom it is (:class:`Scope`). On PostgreSQL that sets the role, the tenant for row-level
security, and the schema, for this transaction only; on SQLite there is nothing to set.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import attrs
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, make_url

from orchestrator_server import wire
from orchestrator_server.errors import Invalid, NotFound
from orchestrator_server.records import Created, NewExecution
from orchestrator_server.sql.faults import translated
from orchestrator_server.sql.hop import Reply, Threads
from orchestrator_server.sql.writer import Accept, Append, Lane, Meter, PostgresLane, SqliteLane, Work

__all__ = ["QUEUE_ROLE", "SYSTEM", "TENANT_ROLE", "Database", "Scope", "make_engine", "make_private", "shown"]

Value = TypeVar("Value")

# Roles of PostgreSQL that cannot log in: what a transaction may do, whoever has opened the connection.
TENANT_ROLE = "orchestrator_tenant"
QUEUE_ROLE = "orchestrator_queue"

_PAGES_BEFORE_CHECKPOINT = 16_000  # of 4 KiB; the writer sees to it much earlier
_BUSY = 10.0  # seconds that SQLite waits for another process
_IDLE_IN_TRANSACTION = 10  # seconds that PostgreSQL lets a session do nothing in a transaction
# How soon a connection is given up whose other end is not there any more: after some 25 seconds of silence.
_ALIVE = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
_LANES = 4  # writers on one PostgreSQL; each tenant has one of them


@attrs.frozen
class Scope:
    """For whom a transaction is. ``role`` ``None`` is the owner of the tables: only for what is the system's."""

    role: str | None = None
    tenant: str = ""
    schema: str | None = None

    @property
    def settings(self) -> tuple[str, tuple[str, ...]]:
        """A statement for PostgreSQL and its values. All of it ends with the transaction."""
        parts, values = ["set_config('app.tenant', %s, true)"], [self.tenant]
        if self.schema is not None:
            parts.append("set_config('search_path', %s, true)")
            values.append(f'"{self.schema}"')
        if self.role is not None:
            parts.append("set_config('role', %s, true)")
            values.append(self.role)
        return f"SELECT {', '.join(parts)}", tuple(values)


SYSTEM = Scope()


class Database:
    """A database and the threads that work on it.

    Args:
        url: Which.
        threads: Where reading is done, shared with other databases.
        patience: Seconds for which an append waits for a database that does not answer.
        meter: Told of every commit.
    """

    def __init__(self, url: URL, threads: Threads, *, patience: float = 45.0, meter: Meter | None = None) -> None:
        self.engine = make_engine(url)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        self._threads = threads
        self._patience = patience
        self._meter = meter
        self._lanes: dict[int, Lane] = {}
        self._lock = threading.Lock()
        self.closed = False

    async def read(self, scope: Scope, work: Callable[[Connection], Value]) -> Value:
        """What ``work`` reads in a transaction of its own, in a thread."""
        return await self._threads.run(lambda: self.read_now(scope, work))

    def read_now(self, scope: Scope, work: Callable[[Connection], Value]) -> Value:
        """The same, in this thread."""
        with translated(), self._begin(scope) as connection:
            return work(connection)

    async def write(self, scope: Scope, work: Callable[[Connection], Value]) -> Value:
        """What ``work`` returns, done and committed; an exception undoes it.

        On SQLite it goes through the writer, like everything that is written: two connections that wait for one lock do
        not wait fairly.
        """
        if not self.is_sqlite:
            return await self._threads.run(lambda: self.write_now(scope, work))
        job = Work(work, Reply())
        self._lane(scope.tenant).submit(job)
        result: Value = await job.reply.wait()
        return result

    def write_now(self, scope: Scope, work: Callable[[Connection], Value]) -> Value:
        """The same, in this thread."""
        with translated(), self._begin(scope, write=True) as connection:
            return work(connection)

    async def accept(self, scope: Scope, new: NewExecution, encoded: wire.Encoded) -> Created:
        """Accept an execution: on SQLite together with others, through the writer."""
        job = Accept(scope, new, encoded, Reply())
        if not self.is_sqlite:
            return await self._threads.run(lambda: self.write_now(scope, job.run))
        self._lane(scope.tenant).submit(job)
        created: Created = await job.reply.wait()
        return created

    async def append(self, job: Append) -> None:
        """Hand an append to the writer and wait until it is committed."""
        self._lane(job.scope.tenant).submit(job)
        await job.reply.wait()

    def close(self) -> None:
        """Commit what was handed in, end the writers, close the connections. Blocks until then."""
        with self._lock:
            self.closed = True
            lanes = [*self._lanes.values()]
        for lane in lanes:
            lane.close()
        self.engine.dispose()

    def _lane(self, tenant: str) -> Lane:
        number = 0 if self.is_sqlite else hash(tenant) % _LANES
        with self._lock:
            if self.closed:
                raise NotFound("there is no such tenant any more, or its storage was closed")
            lane = self._lanes.get(number)
            if lane is None:
                make = SqliteLane if self.is_sqlite else PostgresLane
                lane = self._lanes[number] = make(self.engine, patience=self._patience, meter=self._meter)
            return lane

    @contextlib.contextmanager
    def _begin(self, scope: Scope, *, write: bool = False) -> Iterator[Connection]:
        if self.closed:
            raise NotFound("there is no such tenant any more, or its storage was closed")
        with self.engine.connect() as connection:
            try:
                with self._transaction(connection, scope, write=write) as begun:
                    yield begun
            finally:
                if self.closed:
                    connection.invalidate()  # its pool is gone: nobody else would close it

    @contextlib.contextmanager
    def _transaction(self, connection: Connection, scope: Scope, *, write: bool) -> Iterator[Connection]:
        if self.is_sqlite and write:
            connection = connection.execution_options(immediate=True)
        with connection.begin():
            if not self.is_sqlite:
                connection.exec_driver_sql(*scope.settings)
            yield connection


def shown(url: str) -> str:
    """A database's address for people: without its password."""
    return make_url(url).render_as_string(hide_password=True)


def make_engine(url: URL) -> sa.Engine:
    """An engine with the settings that durability needs."""
    if url.get_backend_name() == "sqlite":
        arguments = {"timeout": _BUSY, "check_same_thread": False}
        # Parameters are data of tenants: errors that hold them end in a log.
        engine = sa.create_engine(url, connect_args=arguments, pool_size=4, max_overflow=16, hide_parameters=True)
        event.listen(engine, "do_connect", _before_sqlite_connects)
        event.listen(engine, "connect", _on_sqlite_connect)
        event.listen(engine, "begin", _on_sqlite_begin)
        return engine
    driver = url.set(drivername="postgresql+psycopg")
    alive = {name: value for name, value in _ALIVE.items() if name not in url.query}
    try:
        engine = sa.create_engine(
            driver,
            connect_args=alive,
            pool_size=4,
            max_overflow=12,
            pool_pre_ping=True,
            pool_recycle=1800,
            hide_parameters=True,
        )
    except ModuleNotFoundError as error:
        extra = "pluggable-orchestrator-server[postgresql]"
        raise Invalid(f"database: PostgreSQL needs {error.name}: pip install '{extra}'") from None
    event.listen(engine, "connect", _on_postgresql_connect)
    return engine


def _before_sqlite_connects(*told: Any) -> None:
    make_private(str(told[2][0]))


def make_private(file: str) -> None:
    """Make a file that nobody else may read, from its first byte on, where there is none; what is there stays as it is.

    What SQLite makes beside a database (``-wal``, ``-shm``) has the mode of the database.
    """
    if file.startswith("file:"):
        return  # an address with parameters of its own
    # Never a file that is there: closing it would take away the locks that this process's connections have on it, and
    # another process, alone with it as it seems, would remove the log. Where it cannot be made, SQLite says why.
    with contextlib.suppress(OSError):
        os.close(os.open(file, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0o600))


def _on_sqlite_connect(connection: sqlite3.Connection, record: object) -> None:  # noqa: ARG001 - SQLAlchemy's signature
    # The driver would begin transactions by itself, and not where we want them: see `_on_sqlite_begin`.
    connection.isolation_level = None
    _use_wal(connection)
    for pragma in (
        "synchronous=FULL",
        "foreign_keys=ON",
        f"wal_autocheckpoint={_PAGES_BEFORE_CHECKPOINT}",
        "journal_size_limit=67108864",
        "cache_size=-16384",
        "temp_store=MEMORY",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _use_wal(connection: sqlite3.Connection) -> None:
    # The first to ask for it changes the file; SQLite lets others who ask meanwhile fail at once, whatever their time-out.
    give_up = time.monotonic() + _BUSY
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
        except sqlite3.OperationalError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.01)
        else:
            return


def _on_postgresql_connect(connection: Any, record: object) -> None:  # noqa: ARG001 - as above
    try:
        # Some servers are set up to acknowledge before they sync; what is stricter stays.
        setting = "synchronous_commit"
        connection.execute(f"SELECT set_config('{setting}', 'on', false) WHERE current_setting('{setting}') = 'off'")
        # A process that is stopped in a transaction must not keep rows locked: nobody could take over what it holds.
        connection.execute(f"SET idle_in_transaction_session_timeout = '{_IDLE_IN_TRANSACTION}s'")
        connection.commit()
    except BaseException:
        connection.close()  # nobody else knows of it yet
        raise


def _on_sqlite_begin(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("immediate")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
