"""Tenants are apart in the database itself, not only in our statements."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import errors
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DatabaseError

from conftest import emptied
from orchestrator_server.errors import Invalid
from orchestrator_server.records import Key, Message, Schedule, Tenant
from orchestrator_server.sql import SqlStorage
from orchestrator_server.sql.database import Database, make_engine
from orchestrator_server.sql.tables import TENANT_TABLES, metadata
from orchestrator_server.testing import Harness
from orchestrator_server.testing.contracts import fill
from orchestrator_server.testing.harness import new

pytestmark = pytest.mark.anyio
Url = Callable[[str], str]


def counts(url: str) -> dict[str, int]:
    """How many rows each table has: on PostgreSQL as a superuser sees it, in every schema."""
    if url.startswith("postgresql"):
        address = make_url(url)
        url = address.set(username="postgres", password=None).render_as_string(hide_password=False)
    engine = make_engine(make_url(url))
    found: dict[str, int] = {}
    try:
        with engine.connect() as connection:
            inspector = sa.inspect(connection)
            schemas = [None] if engine.dialect.name == "sqlite" else inspector.get_schema_names()
            for schema in schemas:
                for table in inspector.get_table_names(schema):
                    if table in metadata.tables and table != "properties":
                        name = f'"{schema}"."{table}"' if schema else f'"{table}"'
                        found[name] = connection.execute(sa.text(f"SELECT count(*) FROM {name}")).scalar_one()
    finally:
        engine.dispose()
    return found


@pytest.mark.parametrize("isolation", ["shared", "schema", "database"])
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_deleting_a_tenant_leaves_no_row_in_any_table(
    isolation: str, database: str, tmp_path: Path, postgresql_url: Url
):
    url = f"sqlite:///{tmp_path}/a.db" if database == "sqlite" else postgresql_url(f"contract_{isolation}")
    storage = await emptied(await SqlStorage.open(url, isolation=isolation))
    try:
        empty = counts(url)
        assert set(empty.values()) == {0}
        store = await Harness(storage).tenant("t")
        await fill(store, "t")
        await storage.keys.create(Key("k", "t", "admin", "hash"))
        if isolation == "shared":
            full = counts(url)
            assert {name for name, count in full.items() if not count} == set(), "every table has something to lose"
        await storage.tenants.delete("t")
        assert counts(url) == empty
        if database == "sqlite":
            folder = tmp_path / "a.db.tenants"
            assert not folder.exists() or list(folder.iterdir()) == []
    finally:
        await storage.aclose()


@pytest.fixture
async def as_app(postgresql_url: Url) -> Iterator[psycopg.Connection]:
    """A connection of the server's own user to a database with two full tenants."""
    url = postgresql_url("contract_shared")
    storage = await emptied(await SqlStorage.open(url))
    for name in ("a", "b"):
        await fill(await Harness(storage).tenant(name), name)
    await storage.aclose()
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        yield connection


def become(connection: psycopg.Connection, role: str, tenant: str | None) -> None:
    connection.rollback()
    if tenant is not None:
        connection.execute("SELECT set_config('app.tenant', %s, true)", (tenant,))
    connection.execute(f"SET LOCAL ROLE {role}")


async def test_without_a_tenant_there_are_no_rows(as_app: psycopg.Connection):
    for tenant in (None, "", "nobody"):
        become(as_app, "orchestrator_tenant", tenant)
        for table in TENANT_TABLES:
            assert as_app.execute(f"SELECT count(*) FROM {table.name}").fetchone() == (0,)
    as_app.rollback()
    for table in TENANT_TABLES:
        shown = as_app.execute(f"SELECT count(*) FROM {table.name}").fetchone()
        assert shown == (0,), "the owner of the tables, too, sees nothing: the policies are forced"


async def test_a_tenant_sees_its_own_rows_and_writes_no_others(as_app: psycopg.Connection):
    for table in TENANT_TABLES:
        become(as_app, "orchestrator_tenant", "a")
        seen = as_app.execute(f"SELECT DISTINCT tenant FROM {table.name}").fetchall()
        assert seen == [("a",)], table.name
        assert as_app.execute(f"UPDATE {table.name} SET tenant = tenant WHERE tenant = 'b'").rowcount == 0
        assert as_app.execute(f"DELETE FROM {table.name} WHERE tenant = 'b'").rowcount == 0
        with pytest.raises(errors.InsufficientPrivilege, match="row-level security"):
            as_app.execute(f"UPDATE {table.name} SET tenant = 'b'")
        become(as_app, "orchestrator_tenant", "a")
        columns = ", ".join(f'"{column.name}"' for column in table.c if column.name != "tenant")
        with pytest.raises(errors.InsufficientPrivilege, match="row-level security"):
            as_app.execute(
                f"INSERT INTO {table.name} (tenant{', ' + columns if columns else ''}) "
                f"SELECT 'b'{', ' + columns if columns else ''} FROM {table.name} LIMIT 1"
            )
    for table in ("tenants", "keys"):
        become(as_app, "orchestrator_tenant", "a")
        with pytest.raises(errors.InsufficientPrivilege):
            as_app.execute(f"SELECT * FROM {table}")


async def test_the_queue_sees_entries_and_nothing_else(as_app: psycopg.Connection):
    become(as_app, "orchestrator_queue", None)
    assert as_app.execute("SELECT DISTINCT tenant FROM executions ORDER BY 1").fetchall() == [("a",), ("b",)]
    for statement in (
        "SELECT payload FROM inbox",
        "SELECT spec FROM schedules",
        "UPDATE executions SET tenant = 'b'",
        "UPDATE executions SET seq = 9",
        "DELETE FROM executions",
        "DELETE FROM inbox",
        *(
            f"SELECT * FROM {table.name}"
            for table in metadata.tables.values()
            if table.name not in {"owners", "executions", "inbox", "schedules"}
        ),
    ):
        become(as_app, "orchestrator_queue", None)
        with pytest.raises(errors.InsufficientPrivilege):
            as_app.execute(statement)


async def test_what_a_transaction_was_for_ends_with_it(postgresql_url: Url):
    storage = await emptied(await SqlStorage.open(postgresql_url("contract_shared")))
    try:
        await fill(await Harness(storage).tenant("a"), "a")
        engine = storage._system.engine
        for _ in range(8):
            with engine.connect() as connection:
                row = connection.exec_driver_sql("SELECT current_user, current_setting('app.tenant', true)").one()
                assert row[0] == "app"
                assert not row[1]
    finally:
        await storage.aclose()


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_another_isolation_is_refused(database: str, tmp_path: Path, postgresql_url: Url):
    url = f"sqlite:///{tmp_path}/a.db" if database == "sqlite" else postgresql_url("contract_shared")
    await (await SqlStorage.open(url)).aclose()
    with pytest.raises(Invalid, match="isolation: this database was set up with 'shared', not 'database'"):
        await SqlStorage.open(url, isolation="database")


async def test_two_systems_on_one_server_share_no_tenant(postgresql_url: Url):
    storages = [await SqlStorage.open(postgresql_url(name), isolation="database") for name in ("one", "two")]
    try:
        stores = [await Harness(storage).tenant("t") for storage in storages]
        await stores[0].schedules.put(Schedule("s", "w"))
        assert list(await stores[1].schedules.list()) == []
    finally:
        for storage in storages:
            await emptied(storage)
            await storage.aclose()


async def test_a_damaged_database_of_a_tenant_stops_nobody_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    storage = await SqlStorage.open(f"sqlite:///{tmp_path}/a.db", isolation="database")
    try:
        stores = {name: await Harness(storage).tenant(name) for name in ("bad", "good")}
        for store in stores.values():
            await store.executions.create(new("exe_a"))
            await store.schedules.put(Schedule("s", "w", next_at=1.0))
        held = await storage.queue.claim("w", 10, 30.0)
        assert {claim.tenant for claim in held} == {"bad", "good"}
        await stores["good"].executions.create(new("exe_b"))
        home = await storage._rooms.home_or_none("bad")
        assert home is not None
        for name in ("read", "write"):
            real = getattr(Database, name)

            async def broken(self: Database, *given: Any, real: Any = real) -> Any:
                if self is home.database:
                    raise DatabaseError("file is not a database", None, OSError("it was overwritten"))
                return await real(self, *given)

            monkeypatch.setattr(Database, name, broken)
        renewed = {claim.tenant: claim for claim in await storage.queue.renew(held, 60.0)}
        before = {claim.tenant: claim for claim in held}
        assert renewed["bad"] == before["bad"], "it is not lost before its lease is over"
        assert renewed["good"].lease_until > before["good"].lease_until
        assert [claim.execution_id for claim in await storage.queue.claim("w", 10, 30.0)] == ["exe_b"]
        assert await storage.queue.next_due() is not None
        assert (await storage.queue.backlog()).due == 0
        assert [due.tenant for due in await storage.queue.due_schedules()] == ["good"]
        await stores["good"].inbox.post("exe_a", Message("m", "cancel"))
        assert list(await storage.queue.mail("w")) == [("good", "exe_a")]
        assert caplog.text.count("a tenant's database is left out") == 1
    finally:
        monkeypatch.undo()
        await storage.aclose()


async def test_commits_are_synced_whatever_the_server_says(postgresql_url: Url):
    url = postgresql_url("careless")
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("ALTER DATABASE careless SET synchronous_commit TO off")
    engine = make_engine(make_url(url))
    with engine.connect() as made:
        assert made.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
    engine.dispose()


async def test_tenants_have_files_of_their_own_on_sqlite(tmp_path: Path):
    storage = await SqlStorage.open(f"sqlite:///{tmp_path}/a.db", isolation="schema")
    try:
        for name in ("acme", "Acme", "a/../b"[:1]):
            await storage.tenants.create(Tenant(name))
        files = sorted(path.name for path in (tmp_path / "a.db.tenants").glob("*.db"))
        assert len({name.lower() for name in files}) == 3, "also where file names know no case"
        store = await storage.store("acme")
        await store.schedules.put(Schedule("s", "w"))
        other = await storage.store("Acme")
        assert list(await other.schedules.list()) == []
    finally:
        await storage.aclose()
