"""Storage in SQL: SQLite and PostgreSQL, with tenants in shared tables, in schemas or in databases of their own."""

from orchestrator_server.sql.storage import SqlStorage

__all__ = ["SqlStorage"]
