"""The schema and its versions: Alembic's migrations, in the wheel.

Alembic is loaded when there is something to migrate: a server that finds its own schema starts without it, sooner and with
10 MB less. A migration's file is named after its revision, so that what there is can be told from the names.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, make_url

from orchestrator_server.errors import SchemaVersion
from orchestrator_server.sql.database import make_engine
from orchestrator_server.sql.faults import translated
from orchestrator_server.sql.places import database_of, schema_of
from orchestrator_server.sql.tables import properties, tenants

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = ["current", "ensure", "head", "upgrade", "upgrade_engine"]

_HERE: Final = Path(__file__).parent
# Alembic keeps what it works on in its modules: one upgrade at a time in a process.
_one_at_a_time = threading.Lock()


def upgrade(url: str) -> None:
    """Bring a database and all its tenants' schemas, databases or files to this version's schema.

    Raises:
        SchemaVersion: It was made by a newer version of this package.
        Unavailable: The database does not answer.
    """
    engine = make_engine(make_url(url))
    try:
        upgrade_engine(engine)
        with translated(), engine.connect() as connection:
            noted = connection.execute(sa.select(properties.c.value).where(properties.c.name == "isolation"))
            isolation = noted.scalar_one_or_none()
            ids = connection.execute(sa.select(tenants.c.id).order_by(tenants.c.id)).scalars().all()
        for tenant_id in ids:
            if isolation == "schema":
                upgrade_engine(engine, schema=schema_of(tenant_id))
            elif isolation == "database":
                own = make_engine(database_of(engine.url, tenant_id))
                try:
                    upgrade_engine(own)
                finally:
                    own.dispose()
    finally:
        engine.dispose()


def current(url: str) -> str | None:
    """The version of the schema that a database has; ``None`` where it has none.

    Raises:
        Unavailable: The database does not answer.
    """
    engine = make_engine(make_url(url))
    try:
        with translated(), engine.connect() as connection:
            return _current(connection, None)
    finally:
        engine.dispose()


def head() -> str:
    """The version that this package needs."""
    return max(_known())


def ensure(engine: sa.Engine) -> None:
    """See to it that the schema is this version's. A database of SQLite without any is given one.

    Raises:
        SchemaVersion: It is another.
    """
    with translated(), engine.connect() as connection:
        found = _current(connection, None)
    needed = head()
    if found is None and engine.dialect.name == "sqlite":
        upgrade_engine(engine)
    elif found is None:
        raise SchemaVersion("the database is empty: run `orchestrator db upgrade`")
    elif found not in _known():
        raise SchemaVersion(
            f"the database has schema {found}, made by a newer version than this one: upgrade the server"
        )
    elif found != needed:
        raise SchemaVersion(
            f"the database has schema {found}, this version needs {needed}: run `orchestrator db upgrade`"
        )


def check(connection: Connection) -> None:
    """See that the schema is not older than this version's. A newer one has come while this process ran: that is an upgrade.

    Raises:
        SchemaVersion: It is older, or there is none.
    """
    found = _current(connection, None)
    if found != head() and (found is None or found in _known()):
        raise SchemaVersion(
            f"the database has schema {found}, this version needs {head()}: run `orchestrator db upgrade`"
        )


def upgrade_engine(engine: sa.Engine, *, schema: str | None = None) -> None:
    """Bring a database, or a schema in it, to this version's schema.

    Raises:
        SchemaVersion: It was made by a newer version of this package.
    """
    with translated(), engine.connect().execution_options(immediate=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            # One at a time: two servers that start together would both begin.
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtextextended('orchestrator/schema', 0))")
            if schema is not None:
                connection.exec_driver_sql("SELECT set_config('search_path', %s, true)", (f'"{schema}"',))
        found = _current(connection, schema)
        if found == head():
            return
        if found is not None and found not in _known():
            raise SchemaVersion(f"the database has schema {found}, made by a newer version than this one")
        from alembic import command  # noqa: PLC0415 - see the module's docstring

        config = _config()
        config.attributes["connection"] = connection
        config.attributes["schema"] = schema
        with _one_at_a_time:
            command.upgrade(config, "head")


def _config() -> Config:
    from alembic.config import Config  # noqa: PLC0415 - see the module's docstring

    config = Config()
    config.set_main_option("script_location", str(_HERE).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _known() -> set[str]:
    return {file.name.partition("_")[0] for file in (_HERE / "versions").glob("[0-9]*.py")}


def _current(connection: Connection, schema: str | None) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version", schema=schema):
        return None
    noted = sa.table("alembic_version", sa.column("version_num", sa.Text), schema=schema)
    return connection.execute(sa.select(noted.c.version_num)).scalar_one_or_none()
