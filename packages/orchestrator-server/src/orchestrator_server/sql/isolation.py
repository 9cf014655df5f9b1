"""Where tenants live: in shared tables, in a schema each, or in a database each.

The tables are the same in all three, with the tenant in every key. On SQLite a tenant of its own has a file of its own,
whether that is called a schema or a database.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection

from orchestrator_server.errors import Invalid
from orchestrator_server.records import Limits
from orchestrator_server.sql import migrations
from orchestrator_server.sql.bound import Home
from orchestrator_server.sql.database import SYSTEM, Database
from orchestrator_server.sql.executions import forget
from orchestrator_server.sql.faults import translated
from orchestrator_server.sql.hop import Threads
from orchestrator_server.sql.places import database_of, folder_of, schema_of
from orchestrator_server.sql.statements import insert
from orchestrator_server.sql.tables import TENANT_TABLES, executions, owners, properties, tenants
from orchestrator_server.sql.tenants import limits_of
from orchestrator_server.sql.writer import Meter

__all__ = ["IsolationName", "Rooms", "make_rooms", "settle"]

# Executions that are removed in one transaction.
_AT_ONCE = 500

IsolationName = Literal["shared", "schema", "database"]


class Rooms(Protocol):
    """Makes, finds and removes homes."""

    async def make(self, tenant_id: str) -> None: ...
    async def remove(self, tenant_id: str) -> None: ...
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

    async def _known(self) -> list[str]:
        wanted = sa.select(tenants.c.id).order_by(tenants.c.id)
        return await self._system.read(SYSTEM, lambda connection: [*connection.execute(wanted).scalars()])

    async def _is_known(self, tenant_id: str) -> bool:
        wanted = sa.select(tenants.c.id).where(tenants.c.id == tenant_id)
        found = await self._system.read(SYSTEM, lambda connection: connection.execute(wanted).scalar_one_or_none())
        return found is not None

    def close(self) -> None:
        """Nothing but the system's database is open."""


def _move_in(tenant_id: str) -> Callable[[Connection], None]:
    def work(connection: Connection) -> None:
        connection.execute(insert(connection, owners).values(tenant=tenant_id).on_conflict_do_nothing())

    return work


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

        def rest(connection: Connection) -> None:
            for table in TENANT_TABLES:
                connection.execute(sa.delete(table).where(table.c.tenant == tenant_id))

        scope = self._home.scope(tenant_id)
        # In pieces, so that others can write in between.
        while await self._system.write(scope, some) == _AT_ONCE:
            pass
        await self._system.write(scope, rest)

    async def homes(self) -> Sequence[Home]:
        return [self._home]

    async def home_or_none(self, tenant_id: str, *, claimed: bool = False) -> Home | None:
        return self._home if claimed or await self._is_known(tenant_id) else None


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
        def work() -> None:
            with translated(), self._system.engine.begin() as connection:
                connection.exec_driver_sql(f'DROP SCHEMA IF EXISTS "{schema_of(tenant_id)}" CASCADE')

        await self._threads.run(work)

    async def homes(self) -> Sequence[Home]:
        return [Home(self._system, schema_of(tenant_id)) for tenant_id in await self._known()]

    async def home_or_none(self, tenant_id: str, *, claimed: bool = False) -> Home | None:  # noqa: ARG002 - as the others
        return Home(self._system, schema_of(tenant_id)) if await self._is_known(tenant_id) else None


class _Databases(_Common):
    """A database for each tenant: a file beside the system's, or a database of the same PostgreSQL server."""

    def __init__(self, system: Database, threads: Threads, patience: float, meter: Meter | None) -> None:
        super().__init__(system)
        self._threads = threads
        self._patience = patience
        self._meter = meter
        self._open: dict[str, Home] = {}
        self._lock = threading.Lock()

    def _url(self, tenant_id: str) -> URL:
        return database_of(self._system.engine.url, tenant_id)

    def _home(self, tenant_id: str) -> Home:
        with self._lock:
            home = self._open.get(tenant_id)
            if home is None:
                url = self._url(tenant_id)
                home = Home(Database(url, self._threads, patience=self._patience, meter=self._meter))
                self._open[tenant_id] = home
            return home

    async def make(self, tenant_id: str) -> None:
        def work() -> None:
            if self._system.is_sqlite:
                folder_of(self._system.engine.url).mkdir(exist_ok=True)
            else:
                self._create(str(self._url(tenant_id).database))
            migrations.upgrade_engine(self._home(tenant_id).database.engine)

        await self._threads.run(work)
        home = self._home(tenant_id)
        await home.database.write(home.scope(tenant_id), _move_in(tenant_id))

    def _create(self, name: str) -> None:
        with translated(), self._system.engine.connect() as connection:
            alone = connection.execution_options(isolation_level="AUTOCOMMIT")
            there = alone.execute(sa.text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": name}).first()
            if there is None:
                alone.exec_driver_sql(f'CREATE DATABASE "{name}"')

    async def remove(self, tenant_id: str) -> None:
        def work() -> None:
            with self._lock:
                home = self._open.pop(tenant_id, None)
            if home is not None:
                home.database.close()
            if self._system.is_sqlite:
                path = str(self._url(tenant_id).database)
                for suffix in ("", "-wal", "-shm"):
                    Path(path + suffix).unlink(missing_ok=True)
                return
            with translated(), self._system.engine.connect() as connection:
                alone = connection.execution_options(isolation_level="AUTOCOMMIT")
                alone.exec_driver_sql(f'DROP DATABASE IF EXISTS "{self._url(tenant_id).database}" WITH (FORCE)')

        await self._threads.run(work)

    async def homes(self) -> Sequence[Home]:
        return [self._home(tenant_id) for tenant_id in await self._known()]

    async def home_or_none(self, tenant_id: str, *, claimed: bool = False) -> Home | None:  # noqa: ARG002 - as the others
        return self._home(tenant_id) if await self._is_known(tenant_id) else None

    def close(self) -> None:
        """Close every tenant's database."""
        with self._lock:
            homes, self._open = self._open, {}
        for home in homes.values():
            home.database.close()
