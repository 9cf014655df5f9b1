"""How Alembic runs the migrations: on the connection that it was given, inside its transaction."""

from __future__ import annotations

from alembic import context

from orchestrator_server.sql.tables import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table_schema=context.config.attributes.get("schema"),
    render_as_batch=connection.dialect.name == "sqlite",
)
context.run_migrations()
