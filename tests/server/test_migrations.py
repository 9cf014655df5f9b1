"""The schema and its versions."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import make_url

from orchestrator_server.errors import Invalid, SchemaVersion, Unavailable
from orchestrator_server.records import Tenant
from orchestrator_server.sql import SqlStorage, migrations
from orchestrator_server.sql.database import make_engine
from orchestrator_server.sql.places import database_of, schema_of
from orchestrator_server.sql.tables import metadata

pytestmark = pytest.mark.anyio


def differences(url: str) -> list[object]:
    engine = make_engine(make_url(url))
    try:
        with engine.connect() as connection:
            context = MigrationContext.configure(
                connection, opts={"compare_type": True, "compare_server_default": True}
            )
            return compare_metadata(context, metadata)
    finally:
        engine.dispose()


def shape(url: str) -> object:
    """What Alembic does not compare: keys, conditions of indexes, the order of columns."""
    engine = make_engine(make_url(url))
    try:
        inspector = sa.inspect(engine)
        return {
            table: (
                [column["name"] for column in inspector.get_columns(table)],
                [column["nullable"] for column in inspector.get_columns(table)],
                inspector.get_pk_constraint(table)["constrained_columns"],
                sorted(
                    (key["constrained_columns"], key["referred_table"]) for key in inspector.get_foreign_keys(table)
                ),
                sorted((index["name"] or "", index["column_names"]) for index in inspector.get_indexes(table)),
                sorted(
                    str({name: str(value) for name, value in index["dialect_options"].items()})
                    for index in inspector.get_indexes(table)
                ),
            )
            for table in metadata.tables
        }
    finally:
        engine.dispose()


def made_directly(url: str) -> str:
    engine = make_engine(make_url(url))
    metadata.create_all(engine)
    engine.dispose()
    return url


def test_what_the_files_are_called_is_what_alembic_knows():
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert migrations.head() == scripts.get_current_head()
    known = {Path(str(script.path)).name.partition("_")[0]: script.revision for script in scripts.walk_revisions()}
    assert list(known) == list(known.values())


def test_a_server_that_finds_its_schema_starts_without_alembic(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'a.db'}"
    migrations.upgrade(url)
    program = """
import asyncio, sys
from orchestrator_server.sql import SqlStorage
from orchestrator_server.app import create_app
async def main():
    storage = await SqlStorage.open(sys.argv[1])
    await storage.aclose()
asyncio.run(main())
print("alembic" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program, url], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_migrations_lead_to_the_tables_on_sqlite(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/a.db"
    assert migrations.current(url) is None
    migrations.upgrade(url)
    assert migrations.current(url) == migrations.head()
    assert differences(url) == []
    assert shape(url) == shape(made_directly(f"sqlite:///{tmp_path}/b.db"))
    migrations.upgrade(url)


def test_migrations_lead_to_the_tables_on_postgresql(postgresql_server: Callable[[str], str]):
    url = postgresql_server("migrated")
    assert migrations.current(url) is None
    migrations.upgrade(url)
    assert migrations.current(url) == migrations.head()
    assert differences(url) == []
    assert shape(url) == shape(made_directly(postgresql_server("made_directly")))
    migrations.upgrade(url)


def test_two_servers_that_start_together_make_one_schema(postgresql_server: Callable[[str], str], tmp_path: Path):
    for url in (postgresql_server("together"), f"sqlite:///{tmp_path}/a.db"):
        failures: list[BaseException] = []

        def upgrade(url: str = url, failures: list[BaseException] = failures) -> None:
            try:
                migrations.upgrade(url)
            except Exception as error:  # noqa: BLE001 - told below
                failures.append(error)

        threads = [threading.Thread(target=upgrade) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert migrations.current(url) == migrations.head()


def set_version(url: str, version: str) -> None:
    engine = make_engine(make_url(url))
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = :version"), {"version": version})
    engine.dispose()


async def test_a_new_file_is_made_at_once_and_keeps_what_it_has(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/new.db"
    storage = await SqlStorage.open(url)
    await storage.tenants.create(Tenant("t"))
    await storage.aclose()
    storage = await SqlStorage.open(url)
    assert [tenant.id for tenant in await storage.tenants.list()] == ["t"]
    await storage.aclose()


async def test_another_schema_is_refused_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    url = f"sqlite:///{tmp_path}/a.db"
    migrations.upgrade(url)
    set_version(url, "9999")
    with pytest.raises(SchemaVersion, match=r"schema 9999, made by a newer version.*upgrade the server"):
        await SqlStorage.open(url)
    with pytest.raises(SchemaVersion, match="newer"):
        migrations.upgrade(url)
    set_version(url, "0001")
    monkeypatch.setattr(migrations, "head", lambda: "0009")
    with pytest.raises(SchemaVersion, match=r"schema 0001, this version needs 0009: run `orchestrator db upgrade`"):
        await SqlStorage.open(url)


def upgrade_to(url: str, version: str) -> None:
    """Bring a database to an older version's schema."""
    engine = make_engine(make_url(url))
    with engine.begin() as connection:
        config = migrations._config()
        config.attributes["connection"] = connection
        config.attributes["schema"] = None
        command.upgrade(config, version)
    engine.dispose()


async def test_what_was_kept_before_tenants_had_a_size_counts(postgresql_server: Callable[[str], str], tmp_path: Path):
    for url in (f"sqlite:///{tmp_path}/a.db", postgresql_server("sizes")):
        upgrade_to(url, "0001")
        engine = make_engine(make_url(url))
        with engine.begin() as connection:
            connection.execute(
                sa.text(
                    "INSERT INTO tenants (id, name, limits, retention, settings, created_at) VALUES ('t', '', '{}', '{}', '{}', 1)"
                )
            )
            if "postgres" in url:
                connection.execute(sa.text("SELECT set_config('app.tenant', 't', true)"))
                connection.execute(sa.text("SET LOCAL ROLE orchestrator_tenant"))
            for statement in (
                "INSERT INTO owners (tenant) VALUES ('t')",
                (
                    "INSERT INTO executions (tenant, id, workflow, status, created_at, seq, fence, claims, queued) "
                    "VALUES ('t', 'exe_a', 'w', 'running', 1, 2, 0, 0, true), ('t', 'exe_b', 'w', 'running', 1, 0, 0, 0, true)"
                ),
                (
                    "INSERT INTO journal (tenant, execution, first, count, fence, data) "
                    "VALUES ('t', 'exe_a', 0, 1, 0, '[\"ä\"]'), ('t', 'exe_a', 1, 1, 0, '[]')"
                ),
                "INSERT INTO outcomes (tenant, execution, data) VALUES ('t', 'exe_a', '[1,2,3]')",
                "INSERT INTO payloads (tenant, hash, data) VALUES ('t', 'h', '\"large\"')",
            ):
                connection.exec_driver_sql(statement)
        engine.dispose()
        migrations.upgrade(url)
        storage = await SqlStorage.open(url)
        assert await storage.tenants.measure("t") == len('["ä"]'.encode() + b"[]" + b"[1,2,3]" + b'"large"')
        store = await storage.store("t")
        assert await store.executions.delete("exe_a")
        await storage.aclose()


async def test_an_empty_postgresql_is_not_filled_unasked(postgresql_server: Callable[[str], str]):
    with pytest.raises(SchemaVersion, match="run `orchestrator db upgrade`"):
        await SqlStorage.open(postgresql_server("empty"))


async def test_upgrading_reaches_the_schemas_of_tenants(postgresql_server: Callable[[str], str]):
    url = postgresql_server("schemas")
    migrations.upgrade(url)
    storage = await SqlStorage.open(url, isolation="schema")
    await storage.tenants.create(Tenant("t"))
    await storage.aclose()
    engine = make_engine(make_url(url))
    with engine.begin() as connection:
        connection.execute(sa.text(f'DROP SCHEMA "{schema_of("t")}" CASCADE'))
        connection.execute(sa.text(f'CREATE SCHEMA "{schema_of("t")}"'))
    migrations.upgrade(url)
    assert set(sa.inspect(engine).get_table_names(schema_of("t"))) == {*metadata.tables, "alembic_version"}
    engine.dispose()


async def test_upgrading_reaches_the_databases_of_tenants(postgresql_server: Callable[[str], str], tmp_path: Path):
    for url in (f"sqlite:///{tmp_path}/a.db", postgresql_server("databases")):
        migrations.upgrade(url)
        storage = await SqlStorage.open(url, isolation="database")
        await storage.tenants.create(Tenant("t"))
        await storage.aclose()
        own = database_of(make_url(url), "t").render_as_string(hide_password=False)
        engine = make_engine(make_url(own))
        with engine.begin() as connection:
            for table in reversed(sa.inspect(connection).get_table_names()):
                connection.execute(sa.text(f'DROP TABLE "{table}"' + (" CASCADE" if "postgres" in url else "")))
        engine.dispose()
        assert migrations.current(own) is None
        migrations.upgrade(url)
        assert migrations.current(own) == migrations.head()


@pytest.mark.parametrize("url", ["nonsense", "mysql://localhost/x", "sqlite://", "sqlite:///:memory:"])
async def test_addresses_that_cannot_be_used_are_refused(url: str):
    with pytest.raises(Invalid, match="database:"):
        await SqlStorage.open(url)


async def test_a_database_that_is_not_there_is_unavailable(tmp_path: Path):
    with pytest.raises(Unavailable):
        await SqlStorage.open("postgresql+psycopg://nobody@127.0.0.1:1/x?connect_timeout=1")
    with pytest.raises(Invalid, match="make it first"):
        await SqlStorage.open(f"sqlite:///{tmp_path}/no/such/folder/a.db")
