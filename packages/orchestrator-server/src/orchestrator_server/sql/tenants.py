"""Tenants and keys in SQL: what is the system's. See the protocols in :mod:`orchestrator_server.storage`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import attrs
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from orchestrator_core.codec import make_converter, unstructure
from orchestrator_server import wire
from orchestrator_server.errors import Exists, NotFound
from orchestrator_server.records import Key, Limits, Retention, Tenant, check_id
from orchestrator_server.sql.bound import Home
from orchestrator_server.sql.database import SYSTEM, Database
from orchestrator_server.sql.statements import database_time, insert
from orchestrator_server.sql.tables import blobs, executions, keys, payloads, tenants

__all__ = ["Isolation", "Keys", "Tenants", "limits_of"]

Value = TypeVar("Value")
_converter = make_converter()


class Isolation(Protocol):
    """Makes, finds and removes what a tenant needs in databases."""

    async def make(self, tenant_id: str) -> None:
        """Make the tenant's home. Doing it again changes nothing."""
        ...

    async def remove(self, tenant_id: str) -> None:
        """Remove it, with everything in it. Doing it again changes nothing."""
        ...

    async def tidy(self, tenant_id: str) -> None:
        """Remove what others had in use as long as the tenant was known: nothing that holds data."""
        ...

    async def home_or_none(self, tenant_id: str) -> Home | None:
        """Where the tenant is, if there is one."""
        ...


@attrs.frozen
class Tenants:
    """See :class:`~orchestrator_server.storage.Tenants`."""

    _system: Database
    _isolation: Isolation

    async def create(self, tenant: Tenant) -> Tenant:
        check_id(tenant.id, "tenant")
        if await self.get(tenant.id) is not None:
            raise Exists(f"there is a tenant {tenant.id!r} already")
        # Its home first: if this process dies in between, there is no tenant without one, and creating it goes on.
        await self._isolation.make(tenant.id)

        def work(connection: Connection) -> Tenant:
            made = attrs.evolve(tenant, created_at=database_time(connection))
            new = insert(connection, tenants).values(id=made.id, created_at=made.created_at, **_values(made))
            if connection.execute(new.on_conflict_do_nothing()).rowcount != 1:
                raise Exists(f"there is a tenant {tenant.id!r} already")
            return made

        return await self._system.write(SYSTEM, work)

    async def get(self, tenant_id: str) -> Tenant | None:
        wanted = sa.select(tenants).where(tenants.c.id == check_id(tenant_id, "tenant"))

        def work(connection: Connection) -> Tenant | None:
            row = connection.execute(wanted).one_or_none()
            return None if row is None else _tenant(row)

        return await self._system.read(SYSTEM, work)

    async def list(self, *, after: str = "", limit: int = 100) -> Sequence[Tenant]:
        wanted = sa.select(tenants).where(tenants.c.id > after).order_by(tenants.c.id).limit(limit)
        return await self._system.read(SYSTEM, lambda connection: [_tenant(row) for row in connection.execute(wanted)])

    async def update(self, tenant_id: str, **changes: Any) -> Tenant:
        this = tenants.c.id == check_id(tenant_id, "tenant")

        def work(connection: Connection) -> Tenant:
            row = connection.execute(sa.select(tenants).where(this).with_for_update()).one_or_none()
            if row is None:
                raise NotFound(f"there is no tenant {tenant_id!r}")
            changed = attrs.evolve(_tenant(row), **changes)
            connection.execute(sa.update(tenants).where(this).values(_values(changed)))
            return changed

        return await self._system.write(SYSTEM, work)

    async def measure(self, tenant_id: str) -> int:
        home = await self._isolation.home_or_none(check_id(tenant_id, "tenant"))
        if home is None:
            raise NotFound(f"there is no tenant {tenant_id!r}")

        def add_up(connection: Connection) -> int:
            sums = [
                sa.select(sa.func.coalesce(sa.func.sum(table.c.size), 0)).where(table.c.tenant == tenant_id)
                for table in (executions, payloads, blobs)
            ]
            return sum(int(connection.execute(one).scalar_one()) for one in sums)

        size = await home.database.read(home.scope(tenant_id), add_up)
        noted = sa.update(tenants).where(tenants.c.id == tenant_id).values(size=size)
        await self._system.write(SYSTEM, lambda connection: connection.execute(noted) and None)
        return size

    async def delete(self, tenant_id: str) -> None:
        if await self.get(tenant_id) is None:
            raise NotFound(f"there is no tenant {tenant_id!r}")
        own_keys = sa.delete(keys).where(keys.c.tenant == tenant_id)
        this = sa.select(tenants.c.id).where(tenants.c.id == tenant_id)

        def rest(connection: Connection) -> None:
            connection.execute(this.with_for_update()).all()  # no key is added meanwhile
            connection.execute(own_keys)
            connection.execute(sa.delete(tenants).where(tenants.c.id == tenant_id))

        # Its keys first, and its row last: if this process dies in between, nobody is let in, and deleting it goes on.
        await self._system.write(SYSTEM, lambda connection: connection.execute(own_keys) and None)
        await self._isolation.remove(tenant_id)
        await self._system.write(SYSTEM, rest)
        await self._isolation.tidy(tenant_id)


def _values(tenant: Tenant) -> dict[str, Any]:
    return {
        "name": tenant.name,
        "limits": wire.to_text(unstructure(tenant.limits)),
        "retention": wire.to_text(unstructure(tenant.retention)),
        "settings": wire.to_text(tenant.settings),
    }


def _tenant(row: Any) -> Tenant:
    return Tenant(
        row.id,
        row.name,
        _converter.structure(wire.from_text(row.limits), Limits),
        _converter.structure(wire.from_text(row.retention), Retention),
        wire.from_text(row.settings),
        row.created_at,
        row.size,
    )


def limits_of(connection: Connection) -> Mapping[str, Limits]:
    """The limits of every tenant that has any."""
    none = wire.to_text(unstructure(Limits()))
    rows = connection.execute(sa.select(tenants.c.id, tenants.c.limits).where(tenants.c.limits != none))
    return {row.id: _converter.structure(wire.from_text(row.limits), Limits) for row in rows}


@attrs.frozen
class Keys:
    """See :class:`~orchestrator_server.storage.Keys`."""

    _system: Database

    async def create(self, key: Key) -> None:
        check_id(key.id, "key")
        if key.tenant is not None:
            check_id(key.tenant, "tenant")

        def work(connection: Connection) -> None:
            new = insert(connection, keys).values(attrs.asdict(key))
            if connection.execute(new.on_conflict_do_nothing()).rowcount != 1:
                raise Exists(f"there is a key {key.id!r} already")

        await self._system.write(SYSTEM, work)

    async def get(self, key_id: str) -> Key | None:
        wanted = sa.select(keys).where(keys.c.id == check_id(key_id, "key"))

        def work(connection: Connection) -> Key | None:
            row = connection.execute(wanted).one_or_none()
            return None if row is None else _key(row)

        return await self._system.read(SYSTEM, work)

    async def list(self, tenant_id: str | None) -> Sequence[Key]:
        whose = keys.c.tenant.is_(None) if tenant_id is None else keys.c.tenant == check_id(tenant_id, "tenant")
        wanted = sa.select(keys).where(whose).order_by(keys.c.id)
        return await self._system.read(SYSTEM, lambda connection: [_key(row) for row in connection.execute(wanted)])

    async def revoke(self, key_id: str, at: float) -> None:
        this = keys.c.id == check_id(key_id, "key")

        def work(connection: Connection) -> None:
            connection.execute(sa.update(keys).where(this, keys.c.revoked_at.is_(None)).values(revoked_at=at))
            if connection.execute(sa.select(keys.c.id).where(this)).one_or_none() is None:
                raise NotFound(f"there is no key {key_id!r}")

        await self._system.write(SYSTEM, work)

    async def delete(self, key_id: str) -> None:
        gone = sa.delete(keys).where(keys.c.id == check_id(key_id, "key"))
        await self._system.write(SYSTEM, lambda connection: connection.execute(gone) and None)


def _key(row: Any) -> Key:
    return Key(row.id, row.tenant, row.role, row.hash, row.name, row.created_at, row.expires_at, row.revoked_at)
