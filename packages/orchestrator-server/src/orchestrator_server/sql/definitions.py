"""Workflows, their triggers, secrets, variables and blobs in SQL. See the protocols in :mod:`orchestrator_server.storage`."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import attrs
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from orchestrator_core.types import Json
from orchestrator_server import wire
from orchestrator_server.errors import Conflict, Exists, NotFound
from orchestrator_server.records import (
    Created,
    NewExecution,
    Schedule,
    Slot,
    Triggers,
    Version,
    Webhook,
    WorkflowRow,
    check_id,
    check_new,
    check_text,
)
from orchestrator_server.sql import statements
from orchestrator_server.sql.bound import Bound
from orchestrator_server.sql.statements import database_time, insert
from orchestrator_server.sql.tables import now, schedules, signatures, slots, versions, webhooks, workflows

__all__ = ["Schedules", "Webhooks", "Workflows"]

_MOST_VERSIONS = 2**31 - 1  # as the column has it


@attrs.frozen
class Workflows:
    """See :class:`~orchestrator_server.storage.Workflows`."""

    _bound: Bound

    async def save(
        self,
        workflow_id: str,
        document: Mapping[str, Json],
        *,
        name: str = "",
        expected: int | None = None,
        triggers: Triggers | None = None,
        created_by: str = "",
    ) -> Version:
        check_id(workflow_id, "workflow")
        tenant, text = self._bound.tenant, wire.to_text(document)

        def work(connection: Connection) -> Version:
            row, time = _locked(connection, tenant, workflow_id), database_time(connection)
            alive = row is not None and row.deleted_at is None
            shown = row.latest if row is not None and alive else 0
            if expected is not None and expected != shown:
                raise Conflict(f"workflow {workflow_id!r}: expected version {expected} to be the latest, it is {shown}")
            number = row.latest + 1 if row is not None else 1
            values = {"name": name, "latest": number, "updated_at": time, "deleted_at": None}
            if triggers is not None:
                values["active"] = number
            if not alive:
                values["created_at"] = time
            if row is None:
                new = insert(connection, workflows).values(tenant=tenant, id=workflow_id, **values)
                if connection.execute(new.on_conflict_do_nothing()).rowcount != 1:
                    raise Conflict(f"workflow {workflow_id!r}: somebody else is saving it: read it again")
            else:
                connection.execute(sa.update(workflows).where(*_one(tenant, workflow_id)).values(values))
            if triggers is not None:
                _set_triggers(connection, tenant, workflow_id, number, triggers)
            version = {"tenant": tenant, "workflow": workflow_id, "number": number, "document": text}
            connection.execute(sa.insert(versions).values(created_at=time, created_by=created_by, **version))
            return Version(workflow_id, number, wire.from_text(text), time, created_by)

        return await self._bound.write(work)

    async def activate(self, workflow_id: str, number: int | None, triggers: Triggers) -> WorkflowRow:
        check_id(workflow_id, "workflow")
        tenant = self._bound.tenant

        def work(connection: Connection) -> WorkflowRow:
            row = _locked(connection, tenant, workflow_id)
            wanted = 1 if number is None else number
            if row is None or row.deleted_at is not None or not 0 < wanted <= row.latest:
                raise NotFound(f"workflow {workflow_id!r} has no version {number}")
            live = triggers if number is not None else Triggers()
            _set_triggers(connection, tenant, workflow_id, number or 0, live)
            changed = attrs.evolve(row, active=number, updated_at=database_time(connection))
            values = {"active": number, "updated_at": changed.updated_at}
            connection.execute(sa.update(workflows).where(*_one(tenant, workflow_id)).values(values))
            return changed

        return await self._bound.write(work)

    async def get(self, workflow_id: str) -> WorkflowRow | None:
        where = (*_one(self._bound.tenant, check_id(workflow_id, "workflow")), workflows.c.deleted_at.is_(None))

        def work(connection: Connection) -> WorkflowRow | None:
            row = connection.execute(sa.select(workflows).where(*where)).one_or_none()
            return None if row is None else _workflow(row)

        return await self._bound.read(work)

    async def list(self, *, after: str = "", limit: int = 100) -> Sequence[WorkflowRow]:
        wanted = (
            sa.select(workflows)
            .where(workflows.c.tenant == self._bound.tenant, workflows.c.id > after, workflows.c.deleted_at.is_(None))
            .order_by(workflows.c.id)
            .limit(limit)
        )
        return await self._bound.read(lambda connection: [_workflow(row) for row in connection.execute(wanted)])

    async def version(self, workflow_id: str, number: int) -> Version | None:
        check_id(workflow_id, "workflow")
        if not 0 < number <= _MOST_VERSIONS:
            return None
        mine = (versions.c.tenant == self._bound.tenant, versions.c.workflow == workflow_id)

        def work(connection: Connection) -> Version | None:
            wanted = sa.select(versions).where(*mine, versions.c.number == number)
            row = connection.execute(wanted).one_or_none()
            return None if row is None else _version(row)

        return await self._bound.read(work)

    async def versions(self, workflow_id: str, *, before: int | None = None, limit: int = 100) -> Sequence[Version]:
        tenant = self._bound.tenant
        row = (*_one(tenant, check_id(workflow_id, "workflow")), workflows.c.deleted_at.is_(None))
        alive = sa.select(1).where(*row, workflows.c.created_at <= versions.c.created_at)
        wanted = sa.select(versions).where(versions.c.tenant == tenant, versions.c.workflow == workflow_id)
        if before is not None:
            wanted = wanted.where(versions.c.number < before)
        wanted = wanted.where(alive.exists()).order_by(versions.c.number.desc()).limit(limit)
        return await self._bound.read(lambda connection: [_version(row) for row in connection.execute(wanted)])

    async def delete(self, workflow_id: str, *, expected: int | None = None) -> None:
        check_id(workflow_id, "workflow")
        tenant = self._bound.tenant

        def work(connection: Connection) -> None:
            row = _locked(connection, tenant, workflow_id)
            if row is None or row.deleted_at is not None:
                raise NotFound(f"there is no workflow {workflow_id!r}")
            if expected is not None and expected != row.latest:
                text = f"workflow {workflow_id!r}: expected version {expected} to be the latest, it is {row.latest}"
                raise Conflict(text)
            _set_triggers(connection, tenant, workflow_id, 0, Triggers())
            by_hand = sa.select(schedules.c.id).where(schedules.c.tenant == tenant, schedules.c.workflow == workflow_id)
            _drop_schedules(connection, tenant, connection.execute(by_hand.with_for_update()).scalars().all())
            values = {"active": None, "deleted_at": database_time(connection)}
            connection.execute(sa.update(workflows).where(*_one(tenant, workflow_id)).values(values))

        await self._bound.write(work)


def _one(tenant: str, workflow_id: str) -> tuple[Any, Any]:
    return workflows.c.tenant == tenant, workflows.c.id == workflow_id


def _locked(connection: Connection, tenant: str, workflow_id: str) -> WorkflowRow | None:
    wanted = sa.select(workflows).where(*_one(tenant, workflow_id)).with_for_update()
    row = connection.execute(wanted).one_or_none()
    return None if row is None else _workflow(row)


def _workflow(row: Any) -> WorkflowRow:
    return WorkflowRow(row.id, row.name, row.active, row.latest, row.created_at, row.updated_at, row.deleted_at)


def _version(row: Any) -> Version:
    return Version(row.workflow, row.number, wire.from_text(row.document), row.created_at, row.created_by)


def _set_triggers(connection: Connection, tenant: str, workflow_id: str, number: int, triggers: Triggers) -> None:
    """Make these a workflow's triggers in place of those it had.

    Raises:
        Exists: Another workflow has one of them.
    """
    mine = (webhooks.c.tenant == tenant, webhooks.c.workflow == workflow_id)
    connection.execute(sa.delete(webhooks).where(*mine))
    for hook in triggers.webhooks:
        values = {
            "tenant": tenant,
            "method": check_text(hook.method, "method", 16),
            "path": check_text(hook.path, "path", 512),
            "workflow": workflow_id,
            "version": number,
            "node": hook.node,
            "config": wire.to_text(hook.config),
        }
        made = connection.execute(insert(connection, webhooks).values(values).on_conflict_do_nothing())
        if made.rowcount != 1:
            same = (webhooks.c.tenant == tenant, webhooks.c.method == hook.method, webhooks.c.path == hook.path)
            holder = connection.execute(sa.select(webhooks.c.workflow).where(*same)).scalar()
            by = "" if holder is None else f" by workflow {holder!r}"
            raise Exists(f"the webhook {hook.method} {hook.path} is taken{by}")
    _set_schedules(connection, tenant, workflow_id, triggers.schedules)


def _set_schedules(connection: Connection, tenant: str, workflow_id: str, wanted: Sequence[Schedule]) -> None:
    """Keep those that are the same where they were: saving neither repeats a slot nor forgets one."""
    of_nodes = (schedules.c.tenant == tenant, schedules.c.workflow == workflow_id, schedules.c.node != "")
    rows = connection.execute(sa.select(schedules).where(*of_nodes).with_for_update()).all()
    kept = {row.id: _schedule(row) for row in rows}
    gone = kept.keys() - {schedule.id for schedule in wanted}
    _drop_schedules(connection, tenant, gone)
    for given in wanted:
        schedule = attrs.evolve(given, id=check_id(given.id, "schedule"), workflow=workflow_id)
        before = kept.pop(schedule.id, None)
        if before is not None:
            schedule = before.taken_over_by(schedule)
            where = (schedules.c.tenant == tenant, schedules.c.id == schedule.id)
            connection.execute(sa.update(schedules).where(*where).values(_values(schedule)))
            continue
        new = insert(connection, schedules).values(tenant=tenant, id=schedule.id, **_values(schedule))
        if connection.execute(new.on_conflict_do_nothing()).rowcount != 1:
            raise Exists(f"there is a schedule {schedule.id!r} already")


def _drop_schedules(connection: Connection, tenant: str, gone: Collection[str]) -> int:
    """Remove schedules and their slots. Returns how many there were."""
    if not gone:
        return 0
    connection.execute(sa.delete(slots).where(slots.c.tenant == tenant, slots.c.schedule.in_(gone)))
    where = (schedules.c.tenant == tenant, schedules.c.id.in_(gone))
    return connection.execute(sa.delete(schedules).where(*where)).rowcount


def _values(schedule: Schedule) -> dict[str, Any]:
    return {
        "workflow": schedule.workflow,
        "node": schedule.node,
        "spec": wire.to_text(schedule.spec),
        "next_at": schedule.next_at,
        "enabled": schedule.enabled,
        "state": wire.to_text(schedule.state),
    }


def _schedule(row: Any) -> Schedule:
    spec, state = wire.from_text(row.spec), wire.from_text(row.state)
    return Schedule(row.id, row.workflow, row.node, spec, row.next_at, row.enabled, state)


@attrs.frozen
class Schedules:
    """See :class:`~orchestrator_server.storage.Schedules`."""

    _bound: Bound

    async def put(self, schedule: Schedule) -> None:
        check_id(schedule.id, "schedule")
        check_id(schedule.workflow, "workflow")
        tenant, values = self._bound.tenant, _values(schedule)

        def work(connection: Connection) -> None:
            new = insert(connection, schedules).values(tenant=tenant, id=schedule.id, **values)
            connection.execute(new.on_conflict_do_update(index_elements=["tenant", "id"], set_=values))

        await self._bound.write(work)
        self._bound.ring()

    async def replace(self, schedule: Schedule, *, before: Schedule | None) -> None:
        check_id(schedule.workflow, "workflow")
        where, tenant, values = self._one(schedule.id), self._bound.tenant, _values(schedule)

        def work(connection: Connection) -> None:
            if before is None:
                # Held until this is committed: whoever deletes the workflow waits, and deletes the schedule too.
                workflow = _locked(connection, tenant, schedule.workflow)
                if workflow is None or workflow.deleted_at is not None:
                    raise NotFound(f"there is no workflow {schedule.workflow!r}")
            row = connection.execute(sa.select(schedules).where(*where).with_for_update()).one_or_none()
            done = 0
            if before is not None and row is not None and _schedule(row) == before:
                done = connection.execute(sa.update(schedules).where(*where).values(values)).rowcount
            elif before is None and row is None:
                new = insert(connection, schedules).values(tenant=tenant, id=schedule.id, **values)
                done = connection.execute(new.on_conflict_do_nothing()).rowcount
            if done != 1:
                raise Conflict(f"schedule {schedule.id!r}: it is not as it was read")

        await self._bound.write(work)
        self._bound.ring()

    async def get(self, schedule_id: str) -> Schedule | None:
        where = self._one(schedule_id)

        def work(connection: Connection) -> Schedule | None:
            row = connection.execute(sa.select(schedules).where(*where)).one_or_none()
            return None if row is None else _schedule(row)

        return await self._bound.read(work)

    def _one(self, schedule_id: str) -> tuple[Any, Any]:
        return schedules.c.tenant == self._bound.tenant, schedules.c.id == check_id(schedule_id, "schedule")

    async def list(self) -> Sequence[Schedule]:
        wanted = sa.select(schedules).where(schedules.c.tenant == self._bound.tenant).order_by(schedules.c.id)
        return await self._bound.read(lambda connection: [_schedule(row) for row in connection.execute(wanted)])

    async def delete(self, schedule_id: str) -> bool:
        check_id(schedule_id, "schedule")
        tenant = self._bound.tenant
        return await self._bound.write(lambda connection: _drop_schedules(connection, tenant, [schedule_id]) == 1)

    async def fire(
        self,
        schedule_id: str,
        slot: float,
        new: NewExecution | None,
        *,
        next_at: float | None,
        state: Mapping[str, Json] | None = None,
        before: Schedule | None = None,
    ) -> Created | None:
        where, tenant = self._one(schedule_id), self._bound.tenant
        encoded = None
        if new is not None:
            check_new(new)
            encoded = wire.encode_events([new.event])

        def work(connection: Connection) -> Created | None:
            row = connection.execute(sa.select(schedules).where(*where).with_for_update()).one_or_none()
            if row is None:
                raise NotFound(f"there is no schedule {schedule_id!r}")
            execution = new.event.execution_id if new is not None else None
            taken = {"tenant": tenant, "schedule": schedule_id, "at": slot, "execution": execution}
            made = connection.execute(insert(connection, slots).values(taken).on_conflict_do_nothing())
            if made.rowcount != 1:
                return None
            if before is not None and _schedule(row) != before:
                raise Conflict(f"schedule {schedule_id!r}: it is not as it was read")
            values: dict[str, Any] = {"next_at": next_at}
            if state is not None:
                values["state"] = wire.to_text(state)
            connection.execute(sa.update(schedules).where(*where).values(values))
            if new is None or encoded is None:
                return None
            created = statements.create(connection, tenant, new, encoded)
            if created.execution.id != execution:  # its idempotency key had made another before
                this = (slots.c.tenant == tenant, slots.c.schedule == schedule_id, slots.c.at == slot)
                connection.execute(sa.update(slots).where(*this).values(execution=created.execution.id))
            return created

        created = await self._bound.write(work)
        self._bound.ring()
        return created

    async def slots(self, schedule_id: str, *, limit: int = 100) -> Sequence[Slot]:
        mine = (slots.c.tenant == self._bound.tenant, slots.c.schedule == check_id(schedule_id, "schedule"))
        wanted = sa.select(slots).where(*mine).order_by(slots.c.at.desc()).limit(limit)
        return await self._bound.read(
            lambda connection: [Slot(row.schedule, row.at, row.execution) for row in connection.execute(wanted)]
        )


@attrs.frozen
class Webhooks:
    """See :class:`~orchestrator_server.storage.Webhooks`."""

    _bound: Bound

    async def get(self, method: str, path: str) -> Webhook | None:
        key = (webhooks.c.method == check_text(method, "method", 16), webhooks.c.path == check_text(path, "path", 512))
        tenant = self._bound.tenant

        def work(connection: Connection) -> Webhook | None:
            row = connection.execute(sa.select(webhooks).where(webhooks.c.tenant == tenant, *key)).one_or_none()
            return None if row is None else _webhook(row)

        return await self._bound.read(work)

    async def list(self) -> Sequence[Webhook]:
        mine = sa.select(webhooks).where(webhooks.c.tenant == self._bound.tenant)
        wanted = mine.order_by(webhooks.c.path, webhooks.c.method)
        return await self._bound.read(lambda connection: [_webhook(row) for row in connection.execute(wanted)])

    async def came(self, signature: str) -> str | None:
        wanted = sa.select(signatures.c.key).where(*self._signature(signature), signatures.c.until > now())
        return await self._bound.read(lambda connection: connection.execute(wanted).scalar_one_or_none())

    async def note(self, signature: str, key: str, seconds: float) -> str:
        tenant, this = self._bound.tenant, self._signature(signature)
        old = sa.delete(signatures).where(signatures.c.tenant == tenant, signatures.c.until <= now())
        values = {"tenant": tenant, "digest": _digest(signature), "key": key, "until": now() + seconds}

        def work(connection: Connection) -> str:
            connection.execute(old)
            connection.execute(insert(connection, signatures).values(values).on_conflict_do_nothing())
            return str(connection.execute(sa.select(signatures.c.key).where(*this)).scalar_one())

        return await self._bound.write(work)

    def _signature(self, signature: str) -> tuple[Any, Any]:
        return signatures.c.tenant == self._bound.tenant, signatures.c.digest == _digest(signature)


def _digest(signature: str) -> str:
    return hashlib.sha256(signature.encode()).hexdigest()


def _webhook(row: Any) -> Webhook:
    return Webhook(row.method, row.path, row.workflow, row.version, row.node, wire.from_text(row.config))
