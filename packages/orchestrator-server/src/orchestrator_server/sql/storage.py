"""Storage in SQL. See :class:`orchestrator_server.storage.Storage`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

from sqlalchemy.engine import URL, make_url

from orchestrator_server.errors import Invalid, NotFound
from orchestrator_server.records import check_id
from orchestrator_server.sql import migrations
from orchestrator_server.sql.bell import Bell
from orchestrator_server.sql.bound import Bound
from orchestrator_server.sql.database import SYSTEM, Database
from orchestrator_server.sql.definitions import Schedules, Webhooks, Workflows
from orchestrator_server.sql.executions import Executions, Inbox, SqlJournal
from orchestrator_server.sql.hop import Threads
from orchestrator_server.sql.isolation import IsolationName, Rooms, make_rooms, settle
from orchestrator_server.sql.queue import SqlQueue
from orchestrator_server.sql.statements import database_time
from orchestrator_server.sql.tenants import Keys, Tenants
from orchestrator_server.sql.values import BlobStore, Secrets, Variables
from orchestrator_server.sql.writer import Meter
from orchestrator_server.storage import Storage

__all__ = ["SqlStorage", "SqlTenantStore", "is_there"]

_READERS = 4


class SqlTenantStore:
    """See :class:`~orchestrator_server.storage.TenantStore`."""

    def __init__(self, bound: Bound) -> None:
        self.tenant = bound.tenant
        self.workflows = Workflows(bound)
        self.executions = Executions(bound)
        self.journal = SqlJournal(bound)
        self.inbox = Inbox(bound)
        self.secrets = Secrets(bound)
        self.variables = Variables(bound)
        self.schedules = Schedules(bound)
        self.webhooks = Webhooks(bound)
        self.blobs = BlobStore(bound)


class SqlStorage:
    """See :class:`~orchestrator_server.storage.Storage`. Made by :meth:`open`."""

    def __init__(self, system: Database, rooms: Rooms, threads: Threads) -> None:
        self._system = system
        self._rooms = rooms
        self._threads = threads
        self._bell = Bell(system.engine, threads)
        self.tenants = Tenants(system, rooms)
        self.keys = Keys(system)
        self.queue = SqlQueue(rooms, self._bell)

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        isolation: IsolationName = "shared",
        patience: float = 45.0,
        readers: int = _READERS,
        meter: Meter | None = None,
    ) -> Self:
        """Open a database whose schema is this version's. A SQLite file that is not there is made.

        Args:
            url: ``sqlite:///file.db`` or ``postgresql+psycopg://user@host/name``.
            isolation: Whether tenants share tables, or have a schema or a database each.
            patience: Seconds for which an append waits for a database that does not answer.
            readers: Threads for everything but appends.
            meter: Told of every commit of the writers, in their threads: how many jobs, how many seconds.

        Raises:
            Invalid: The address is of another database, or the database was set up with another isolation.
            SchemaVersion: The schema is older or newer; the text says what to do.
            Unavailable: The database does not answer.
        """
        address = check_url(url)
        threads = Threads(readers, name="orchestrator-storage")
        system = Database(address, threads, patience=patience, meter=meter)
        try:
            await threads.run(lambda: migrations.ensure(system.engine))
            await system.write(SYSTEM, lambda connection: settle(connection, isolation))
        except BaseException:
            system.close()
            threads.close()
            raise
        return cls(system, make_rooms(isolation, system, threads, patience, meter), threads)

    async def store(self, tenant_id: str) -> SqlTenantStore:
        """See the protocol."""
        home = await self._rooms.home_or_none(check_id(tenant_id, "tenant"))
        if home is None:
            raise NotFound(f"there is no tenant {tenant_id!r}")
        return SqlTenantStore(Bound(tenant_id, home, self._bell.ring))

    async def now(self) -> float:
        """See the protocol."""
        return await self._system.read(SYSTEM, database_time)

    async def check(self) -> None:
        """See the protocol."""
        await self._system.read(SYSTEM, migrations.check)

    async def aclose(self) -> None:
        """See the protocol."""
        closing = Threads(1, name="orchestrator-closing", idle=0.0)
        await closing.run(self._close)

    def _close(self) -> None:
        self._bell.close()
        self._threads.close()
        self._rooms.close()
        self._system.close()


def check_url(url: str) -> URL:
    """The address of a database.

    Raises:
        Invalid: It cannot be used.
    """
    try:
        address = make_url(url)
    except Exception as error:
        raise Invalid("database: this is no address; use sqlite:///file.db or postgresql+psycopg://…") from error
    if address.get_backend_name() == "sqlite":
        if not address.database or ":memory:" in address.database:
            raise Invalid("database: SQLite needs a file, as in sqlite:///orchestrator.db")
        folder = Path(address.database).parent
        if not folder.is_dir():
            raise Invalid(f"database: there is no folder {folder}: make it first")
        return address.set(drivername="sqlite", database=str(Path(address.database)))
    if address.get_backend_name() != "postgresql":
        raise Invalid(f"database: {address.get_backend_name()!r} is not supported: use sqlite or postgresql")
    return address


def is_there(database: str) -> bool:
    """Whether the file of a database of SQLite is there, which asking would make; of another nobody knows before it is asked."""
    address = check_url(database)
    return address.get_backend_name() != "sqlite" or Path(str(address.database)).exists()


if TYPE_CHECKING:

    def _keeps(storage: SqlStorage) -> Storage:
        """The type checkers' proof that it has what the protocol asks for."""
        return storage
