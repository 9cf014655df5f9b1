"""Where tenants live: in shared tables, in a schema each, or in a database each.

The tables are the same in all three, with the tenant in every key. On SQLite a tenant of its own has a file of its own,
whether that is called a schema or a database.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import URL, Connection

from orchestrator_server.errors import Invalid, Unavailable
from orchestrator_server.records import Limits
from orchestrator_server.sql import files, migrations
from orchestrator_server.sql.bound import Home
from orchestrator_server.sql.database import SYSTEM, Database, make_engine
from orchestrator_server.sql.executions import forget
from orchestrator_server.sql.faults import translate, translated
from orchestrator_server.sql.hop import Threads
from orchestrator_server.sql.places import database_of, folder_of, schema_of
from orchestrator_server.sql.statements import insert
from orchestrator_server.sql.tables import TENANT_TABLES, executions, owners, properties, schedules, tenants, webhooks
from orchestrator_server.sql.tenants import limits_of
from orchestrator_server.sql.writer import Meter

__all__ = ["IsolationName", "Rooms", "make_rooms", "settle"]

# Executions that are removed in one transaction.
_AT_ONCE = 500
_TRIES = 8
_PAUSE = 0.5  # seconds between two tries
_NOT_ALLOWED = "42501"

IsolationName = Literal["shared", "schema", "database"]


class Rooms(Protocol):
    """Makes, finds and removes homes."""

    async def make(self, tenant_id: str) -> None: ...
    async def remove(self, tenant_id: str) -> None: ...
    async def tidy(self, tenant_id: str) -> None: ...
    async def homes(self) -> Sequence[Home]: ...
    async def home_or_none(self, tenant_id: str, *, claimed: bool = False) -> Home | None: ...
    async def limits(self) -> Mapping[str, Limits]: ...
    def close(self) -> None: ...


def make_rooms(
    isolation: IsolationName, system: Database, threads: Threads, patience: float, meter: Meter | None
) -> Rooms:
    """The rooms of an isolation."""
    if isolation == "shared":
        return _Shared(system)
    if isolation == "schema" and not system.is_sqlite:
        return _Schemas(system, threads)
    return _Databases(system, threads, patience, meter)


def settle(connection: Connection, isolation: IsolationName) -> None:
    """Note the isolation of a new database, or see to it that it is the one that was noted.

    Raises:
        Invalid: It is another: tenants would seem to have lost everything.
    """
    is_sqlite = connection.dialect.name == "sqlite"
    wanted = "database" if is_sqlite and isolation == "schema" else isolation  # a file each, either way
    new = insert(connection, properties).values(name="isolation", value=wanted)
    connection.execute(new.on_conflict_do_nothing())
    noted = connection.execute(sa.select(properties.c.value).where(properties.c.name == "isolation")).scalar_one()
    if noted != wanted:
        raise Invalid(f"isolation: this database was set up with {noted!r}, not {wanted!r}")


class _Common:
    def __init__(self, system: Database) -> None:
        self._system = system

    async def limits(self) -> Mapping[str, Limits]:
        return await self._system.read(SYSTEM, limits_of)

    async def _known(self) -> dict[str, float]:
        """Every tenant, and when it was made: one that was made again is another one."""
        wanted = sa.select(tenants.c.id, tenants.c.created_at).order_by(tenants.c.id)

        def work(connection: Connection) -> dict[str, float]:
            return {row.id: row.created_at for row in connection.execute(wanted)}

        return await self._system.read(SYSTEM, work)

    async def _made_at(self, tenant_id: str) -> float | None:
        wanted = sa.select(tenants.c.created_at).where(tenants.c.id == tenant_id)
        return await self._system.read(SYSTEM, lambda connection: connection.execute(wanted).scalar_one_or_none())

    async def tidy(self, tenant_id: str) -> None:
        """Nothing is left to be done."""

    def close(self) -> None:
        """Nothing but the system's database is open."""


def _move_in(tenant_id: str) -> Callable[[Connection], None]:
    def work(connection: Connection) -> None:
        connection.execute(insert(connection, owners).values(tenant=tenant_id).on_conflict_do_nothing())

    return work


def _drop_database(engine: sa.Engine, name: str) -> None:
    """Remove a database, whoever is connected to it."""
    for left in reversed(range(_TRIES)):
        try:
            with engine.connect() as connection:
                alone = connection.execution_options(isolation_level="AUTOCOMMIT")
                alone.exec_driver_sql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        except exc.ProgrammingError as error:
            # The server's own housekeeping is at work there, which only a superuser may end: it ends by itself.
            if not left or getattr(error.orig, "sqlstate", None) != _NOT_ALLOWED:
                raise translate(error) from error
            time.sleep(_PAUSE)
        except exc.SQLAlchemyError as error:
            raise translate(error) from error
        else:
            return


def _drop_schema(engine: sa.Engine, name: str) -> None:
    """Remove a schema with all that is in it."""
    for left in reversed(range(_TRIES)):
        try:
            with translated(), engine.begin() as connection:
                connection.exec_driver_sql(f'DROP SCHEMA IF EXISTS "{name}" CASCADE')
        except Unavailable:
            if not left:
                raise
            # Who still works there takes the tables in another order: a deadlock, of which one of both is the victim.
        else:
            return


class _Shared(_Common):
    """All in one."""

    def __init__(self, system: Database) -> None:
        super().__init__(system)
        self._home = Home(system)

    async def make(self, tenant_id: str) -> None:
        await self._system.write(self._home.scope(tenant_id), _move_in(tenant_id))

    async def remove(self, tenant_id: str) -> None:
        def some(connection: Connection) -> int:
            ids = sa.select(executions.c.id).where(executions.c.tenant == tenant_id).limit(_AT_ONCE)
            return forget(connection, tenant_id, [*connection.execute(ids).scalars()])

        def stop(connection: Connection) -> None:
            for table in (webhooks, schedules):
                connection.execute(sa.delete(table).where(table.c.tenant == tenant_id))

        def rest(connection: Connection) -> None:
            # Locked: what is being added waits, and is refused then; what was added while this waited is removed.
            mine = sa.select(owners.c.tenant).where(owners.c.tenant == tenant_id)
            connection.execute(mine.with_for_update()).all()
            for table in TENANT_TABLES:
                connection.execute(sa.delete(table).where(table.c.tenant == tenant_id))

        scope = self._home.scope(tenant_id)
        # Nothing starts by itself any more. Then in pieces, so that others can write in between.
        await self._system.write(scope, stop)
        while await self._system.write(scope, some) == _AT_ONCE:
            pass
        await self._system.write(scope, rest)

    async def homes(self) -> Sequence[Home]:
        return [self._home]

    async def home_or_none(self, tenant_id: str, *, claimed: bool = False) -> Home | None:
        return self._home if claimed or await self._made_at(tenant_id) is not None else None


class _Schemas(_Common):
    """A schema of PostgreSQL for each tenant."""

    def __init__(self, system: Database, threads: Threads) -> None:
        super().__init__(system)
        self._threads = threads

    async def make(self, tenant_id: str) -> None:
        name = schema_of(tenant_id)

        def work() -> None:
            with translated(), self._system.engine.begin() as connection:
                connection.exec_driver_sql(f'CREATE SCHEMA IF NOT EXISTS "{name}"')
            migrations.upgrade_engine(self._system.engine, schema=name)

        await self._threads.run(work)
        await self._system.write(Home(self._system, name).scope(tenant_id), _move_in(tenant_id))

    async def remove(self, tenant_id: str) -> None:
        await self._threads.run(lambda: _drop_schema(self._system.engine, schema_of(tenant_id)))

    async def homes(self) -> Sequence[Home]:
        return [Home(self._system, schema_of(tenant_id)) for tenant_id in await self._known()]

    async def home_or_none(self, tenant_id: str, *, claimed: bool = False) -> Home | None:  # noqa: ARG002 - as the others
        return Home(self._system, schema_of(tenant_id)) if await self._made_at(tenant_id) is not None else None


class _Databases(_Common):
    """A database for each tenant: a file beside the system's, or a database of the same PostgreSQL server."""

    def __init__(self, system: Database, threads: Threads, patience: float, meter: Meter | None) -> None:
        super().__init__(system)
        self._threads = threads
        self._patience = patience
        self._open: dict[str, tuple[float, Home]] = {}  # with the time at which their tenants were made
        self._meter = meter
        self._lock = threading.Lock()

    def _url(self, tenant_id: str) -> URL:
        return database_of(self._system.engine.url, tenant_id)

    def _database(self, tenant_id: str) -> Database:
        return Database(self._url(tenant_id), self._threads, patience=self._patience, meter=self._meter)

    def _home(self, tenant_id: str, made_at: float) -> Home:
        with self._lock:
            known, home = self._open.get(tenant_id, (None, None))
            if home is not None and known == made_at:
                return home
            new = Home(self._database(tenant_id))
            self._open[tenant_id] = made_at, new
        if home is not None:
            # Another process deleted the tenant and made it again.
            self._threads.start(home.database.close)
        return new

    async def make(self, tenant_id: str) -> None:
        def work() -> None:
            if self._system.is_sqlite:
                folder_of(self._system.engine.url).mkdir(mode=0o700, exist_ok=True)
            else:
                self._create(str(self._url(tenant_id).database))
            database = self._database(tenant_id)
            try:
                migrations.upgrade_engine(database.engine)
                database.write_now(Home(database).scope(tenant_id), _move_in(tenant_id))
            finally:
                database.close()

        await self._threads.run(work)

    def _create(self, name: str) -> None:
        if self._is_there(name):
            return
        with translated(), self._system.engine.connect() as connection:
            alone = connection.execution_options(isolation_level="AUTOCOMMIT")
            alone.exec_driver_sql(f'CREATE DATABASE "{name}"')

    def _is_there(self, name: str) -> bool:
        wanted = sa.text("SELECT 1 FROM pg_database WHERE datname = :name")
        with translated(), self._system.engine.connect() as connection:
            return connection.execute(wanted, {"name": name}).first() is not None

    async def remove(self, tenant_id: str) -> None:
        def work() -> None:
            self._close(tenant_id)
            if self._system.is_sqlite:
                files.empty(Path(str(self._url(tenant_id).database)))
            elif self._is_there(str(self._url(tenant_id).database)):
                # Emptied first: to be without its tables is no fault of the server, to be without a database seems one.
                engine = make_engine(self._url(tenant_id))
                try:
                    _drop_schema(engine, "public")
                finally:
                    engine.dispose()

        await self._threads.run(work)

    async def tidy(self, tenant_id: str) -> None:
        def work() -> None:
            self._close(tenant_id)  # somebody here may have asked for it until now
            if self._system.is_sqlite:
                files.remove(Path(str(self._url(tenant_id).database)))
                return
            _drop_database(self._system.engine, str(self._url(tenant_id).database))

        await self._threads.run(work)

    def _close(self, tenant_id: str) -> None:
        with self._lock:
            _, home = self._open.pop(tenant_id, (None, None))
        if home is not None:
            home.database.close()

    async def homes(self) -> Sequence[Home]:
        known = await self._known()
        with self._lock:
            gone = [tenant_id for tenant_id in self._open if tenant_id not in known]
        for tenant_id in gone:  # by another process
            self._threads.start(partial(self._close, tenant_id))
        return [self._home(tenant_id, made_at) for tenant_id, made_at in known.items()]

    async def home_or_none(self, tenant_id: str, *, claimed: bool = False) -> Home | None:  # noqa: ARG002 - as the others
        made_at = await self._made_at(tenant_id)
        return None if made_at is None else self._home(tenant_id, made_at)

    def close(self) -> None:
        """Close every tenant's database."""
        with self._lock:
            homes, self._open = [home for _, home in self._open.values()], {}
        for home in homes:
            home.database.close()
