"""Where a tenant's data is, and the transactions on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import attrs
from sqlalchemy.engine import Connection

from orchestrator_server.sql.database import QUEUE_ROLE, TENANT_ROLE, Database, Scope

__all__ = ["Bound", "Home"]

Value = TypeVar("Value")


@attrs.frozen
class Home:
    """A database, and (on PostgreSQL) a schema in it."""

    database: Database
    schema: str | None = None

    def scope(self, tenant: str) -> Scope:
        """Work for a tenant."""
        return Scope(TENANT_ROLE, tenant, self.schema)

    @property
    def queue_scope(self) -> Scope:
        """The queue's work, over every tenant that is at home here."""
        return Scope(QUEUE_ROLE, "", self.schema)


@attrs.frozen
class Bound:
    """A tenant at home. All that a tenant's stores have in hand."""

    tenant: str
    home: Home
    ring: Callable[[], None]  # something may be due

    @property
    def scope(self) -> Scope:
        """For whom its transactions are."""
        return self.home.scope(self.tenant)

    async def read(self, work: Callable[[Connection], Value]) -> Value:
        """Read in a transaction."""
        return await self.home.database.read(self.scope, work)

    async def write(self, work: Callable[[Connection], Value]) -> Value:
        """Write in a transaction."""
        return await self.home.database.write(self.scope, work)
