"""Secrets, variables and blobs in SQL. See the protocols in :mod:`orchestrator_server.storage`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from orchestrator_server import wire
from orchestrator_server.errors import Conflict, NotFound
from orchestrator_server.records import Blob, Secret, Variable, blob_reference, check_name, check_text
from orchestrator_server.sql.bound import Bound
from orchestrator_server.sql.statements import by_index, insert
from orchestrator_server.sql.tables import blobs, now, secrets, variables

__all__ = ["BlobStore", "Secrets", "Variables"]


@attrs.frozen
class Secrets:
    """See :class:`~orchestrator_server.storage.Secrets`."""

    _bound: Bound

    async def put(self, secret: Secret) -> None:
        where, tenant = self._one(secret.name), self._bound.tenant
        values = {"version": secret.version, "key_id": secret.key_id, "ciphertext": secret.ciphertext}

        def work(connection: Connection) -> None:
            if secret.version == 1:
                new = insert(connection, secrets).values(tenant=tenant, name=secret.name, updated_at=now(), **values)
                changed = connection.execute(new.on_conflict_do_nothing())
            else:
                before = (*where, secrets.c.version == secret.version - 1)
                changed = connection.execute(sa.update(secrets).where(*before).values(updated_at=now(), **values))
            if changed.rowcount != 1:
                raise Conflict(
                    f"secret {secret.name!r}: version {secret.version} does not follow the one that is stored"
                )

        await self._bound.write(work)

    async def replace(self, secret: Secret) -> None:
        where = (*self._one(secret.name), secrets.c.version == secret.version)

        def work(connection: Connection) -> None:
            values = {"key_id": secret.key_id, "ciphertext": secret.ciphertext}
            if connection.execute(sa.update(secrets).where(*where).values(values)).rowcount != 1:
                raise Conflict(f"secret {secret.name!r}: version {secret.version} is not the one that is stored")

        await self._bound.write(work)

    async def get(self, name: str) -> Secret | None:
        where = self._one(name)

        def work(connection: Connection) -> Secret | None:
            row = connection.execute(sa.select(secrets).where(*where)).one_or_none()
            return None if row is None else _secret(row)

        return await self._bound.read(work)

    async def list(self) -> Sequence[Secret]:
        wanted = sa.select(secrets).where(secrets.c.tenant == self._bound.tenant).order_by(secrets.c.name)
        return await self._bound.read(lambda connection: [_secret(row) for row in connection.execute(wanted)])

    async def delete(self, name: str) -> bool:
        gone = sa.delete(secrets).where(*self._one(name))
        return await self._bound.write(lambda connection: connection.execute(gone).rowcount) == 1

    def _one(self, name: str) -> tuple[Any, Any]:
        return secrets.c.tenant == self._bound.tenant, secrets.c.name == check_name(name, "secret")


def _secret(row: Any) -> Secret:
    return Secret(row.name, row.version, row.key_id, bytes(row.ciphertext), row.updated_at)


@attrs.frozen
class Variables:
    """See :class:`~orchestrator_server.storage.Variables`."""

    _bound: Bound

    async def put(self, variable: Variable) -> Variable:
        check_name(variable.name, "variable")
        tenant, value = self._bound.tenant, wire.to_text(variable.value)

        def work(connection: Connection) -> Variable:
            values = {"value": value, "updated_at": now()}
            new = insert(connection, variables).values(tenant=tenant, name=variable.name, **values)
            put = new.on_conflict_do_update(index_elements=["tenant", "name"], set_=values).returning(*variables.c)
            return _variable(connection.execute(put).one())

        return await self._bound.write(work)

    async def get(self, name: str) -> Variable | None:
        where = self._one(name)

        def work(connection: Connection) -> Variable | None:
            row = connection.execute(sa.select(variables).where(*where)).one_or_none()
            return None if row is None else _variable(row)

        return await self._bound.read(work)

    async def list(self) -> Sequence[Variable]:
        wanted = sa.select(variables).where(variables.c.tenant == self._bound.tenant).order_by(variables.c.name)
        return await self._bound.read(lambda connection: [_variable(row) for row in connection.execute(wanted)])

    async def delete(self, name: str) -> bool:
        gone = sa.delete(variables).where(*self._one(name))
        return await self._bound.write(lambda connection: connection.execute(gone).rowcount) == 1

    def _one(self, name: str) -> tuple[Any, Any]:
        return variables.c.tenant == self._bound.tenant, variables.c.name == check_name(name, "variable")


def _variable(row: Any) -> Variable:
    return Variable(row.name, wire.from_text(row.value), row.updated_at)


@attrs.frozen
class BlobStore:
    """See :class:`~orchestrator_server.storage.BlobStore`."""

    _bound: Bound

    async def put(self, data: bytes, *, media_type: str = "application/octet-stream") -> str:
        reference = blob_reference(data, media_type)
        values = {
            "tenant": self._bound.tenant,
            "reference": reference,
            "media_type": media_type,
            "size": len(data),
            "data": bytes(data),
        }

        def work(connection: Connection) -> None:
            new = insert(connection, blobs).values(created_at=now(), **values)
            fresh = {"created_at": new.excluded.created_at}
            connection.execute(new.on_conflict_do_update(index_elements=["tenant", "reference"], set_=fresh))

        await self._bound.write(work)
        return reference

    async def get(self, reference: str) -> bytes:
        where = self._one(reference)
        wanted = sa.select(blobs.c.data).where(*where)
        data = await self._bound.read(lambda connection: connection.execute(wanted).scalar_one_or_none())
        if data is None:
            raise NotFound(f"there is no blob {reference!r}")
        return bytes(data)

    async def info(self, reference: str) -> Blob | None:
        wanted = sa.select(blobs.c.reference, blobs.c.media_type, blobs.c.size, blobs.c.created_at)
        statement = wanted.where(*self._one(reference))

        def work(connection: Connection) -> Blob | None:
            row = connection.execute(statement).one_or_none()
            return None if row is None else Blob(*row)

        return await self._bound.read(work)

    async def prune(self, put_before: float, *, limit: int = 50) -> int:
        old = (
            sa.select(blobs.c.reference)
            .where(blobs.c.tenant == self._bound.tenant, blobs.c.created_at < put_before)
            .order_by(blobs.c.created_at)
            .limit(limit)
        )
        mine = (blobs.c.tenant == self._bound.tenant, blobs.c.created_at < put_before)

        def work(connection: Connection) -> int:
            by_index(connection)
            references = [*connection.execute(old).scalars()]
            # The time again: what was put anew meanwhile stays.
            return connection.execute(sa.delete(blobs).where(*mine, blobs.c.reference.in_(references))).rowcount

        return await self._bound.write(work)

    async def delete(self, reference: str) -> bool:
        gone = sa.delete(blobs).where(*self._one(reference))
        return await self._bound.write(lambda connection: connection.execute(gone).rowcount) == 1

    def _one(self, reference: str) -> tuple[Any, Any]:
        return blobs.c.tenant == self._bound.tenant, blobs.c.reference == check_text(reference, "reference")
