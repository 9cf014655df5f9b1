"""Workflows, triggers, secrets, variables and blobs in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from orchestrator_core.types import Json
from orchestrator_server import wire
from orchestrator_server.errors import Conflict, Exists, NotFound
from orchestrator_server.memory.executions import create
from orchestrator_server.memory.world import Data, Part
from orchestrator_server.records import (
    Blob,
    Created,
    NewExecution,
    Schedule,
    Secret,
    Slot,
    Triggers,
    Variable,
    Version,
    Webhook,
    WorkflowRow,
    blob_reference,
    check_id,
    check_name,
    check_new,
    check_text,
)

__all__ = ["BlobStore", "Schedules", "Secrets", "Variables", "Webhooks", "Workflows"]


class Workflows(Part):
    """See :class:`~orchestrator_server.storage.Workflows`."""

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
        data, now = self._bound.data, self._bound.now()
        row = data.workflows.get(workflow_id)
        latest = row.latest if row is not None else 0
        shown = latest if row is not None and row.deleted_at is None else 0
        if expected is not None and expected != shown:
            raise Conflict(f"workflow {workflow_id!r}: expected version {expected} to be the latest, it is {shown}")
        if triggers is not None:
            _set_triggers(data, workflow_id, latest + 1, triggers)
        version = Version(workflow_id, latest + 1, wire.from_text(wire.to_text(document)), now, created_by)
        data.versions[workflow_id, version.number] = version
        alive = row is not None and row.deleted_at is None
        active = version.number if triggers is not None else row.active if row is not None and alive else None
        created_at = row.created_at if row is not None and alive else now
        data.workflows[workflow_id] = WorkflowRow(workflow_id, name, active, version.number, created_at, now)
        return version

    async def activate(self, workflow_id: str, number: int | None, triggers: Triggers) -> WorkflowRow:
        data = self._bound.data
        row = self._row(workflow_id)
        if row is None or (number is not None and (workflow_id, number) not in data.versions):
            raise NotFound(f"workflow {workflow_id!r} has no version {number}")
        _set_triggers(data, workflow_id, number or 0, triggers if number is not None else Triggers())
        row = data.workflows[workflow_id] = attrs.evolve(row, active=number, updated_at=self._bound.now())
        return row

    def _row(self, workflow_id: str) -> WorkflowRow | None:
        row = self._bound.data.workflows.get(check_id(workflow_id, "workflow"))
        return row if row is not None and row.deleted_at is None else None

    async def get(self, workflow_id: str) -> WorkflowRow | None:
        return self._row(workflow_id)

    async def list(self, *, after: str = "", limit: int = 100) -> Sequence[WorkflowRow]:
        rows = self._bound.data.workflows
        return [rows[key] for key in sorted(rows) if key > after and rows[key].deleted_at is None][:limit]

    async def version(self, workflow_id: str, number: int) -> Version | None:
        return self._bound.data.versions.get((check_id(workflow_id, "workflow"), number))

    async def versions(self, workflow_id: str, *, before: int | None = None, limit: int = 100) -> Sequence[Version]:
        row = self._row(workflow_id)
        if row is None:
            return []
        first = row.latest if before is None else min(before - 1, row.latest)
        versions = (self._bound.data.versions[workflow_id, number] for number in range(first, 0, -1))
        return [version for version in versions if row.has(version)][:limit]

    async def delete(self, workflow_id: str, *, expected: int | None = None) -> None:
        row = self._row(workflow_id)
        if row is None:
            raise NotFound(f"there is no workflow {workflow_id!r}")
        if expected is not None and expected != row.latest:
            raise Conflict(
                f"workflow {workflow_id!r}: expected version {expected} to be the latest, it is {row.latest}"
            )
        data = self._bound.data
        _set_triggers(data, workflow_id, 0, Triggers())
        for name in [item.id for item in data.schedules.values() if item.workflow == workflow_id]:
            _drop_schedule(data, name)
        data.workflows[workflow_id] = attrs.evolve(row, active=None, deleted_at=self._bound.now())


def _set_triggers(data: Data, workflow_id: str, number: int, triggers: Triggers) -> None:
    """Make these a workflow's triggers in place of those it had; check all before changing any."""
    webhooks = {key: hook for key, hook in data.webhooks.items() if hook.workflow != workflow_id}
    for hook in triggers.webhooks:
        key = (check_text(hook.method, "method", 16), check_text(hook.path, "path", 512))
        if key in webhooks:
            raise Exists(f"the webhook {hook.method} {hook.path} is taken by workflow {webhooks[key].workflow!r}")
        webhooks[key] = attrs.evolve(hook, workflow=workflow_id, version=number)
    schedules = {key: item for key, item in data.schedules.items() if item.workflow != workflow_id or not item.node}
    for item in triggers.schedules:
        if check_id(item.id, "schedule") in schedules:
            raise Exists(f"there is a schedule {item.id!r} already")
        mine, kept = attrs.evolve(item, workflow=workflow_id), data.schedules.get(item.id)
        schedules[item.id] = mine if kept is None else kept.taken_over_by(mine)
    for gone in data.schedules.keys() - schedules.keys():
        _drop_schedule(data, gone)
    data.webhooks, data.schedules = webhooks, schedules


def _drop_schedule(data: Data, name: str) -> bool:
    """Remove a schedule and its slots. Returns whether there was one."""
    for slot in [slot for slot in data.slots if slot[0] == name]:
        del data.slots[slot]
    return data.schedules.pop(name, None) is not None


class Secrets(Part):
    """See :class:`~orchestrator_server.storage.Secrets`."""

    async def put(self, secret: Secret) -> None:
        stored = self._bound.data.secrets.get(check_name(secret.name, "secret"))
        current = stored.version if stored is not None else 0
        if secret.version != current + 1:
            raise Conflict(f"secret {secret.name!r}: version {current} is stored, {secret.version} does not follow")
        self._bound.data.secrets[secret.name] = attrs.evolve(secret, updated_at=self._bound.now())

    async def replace(self, secret: Secret) -> None:
        stored = self._bound.data.secrets.get(check_name(secret.name, "secret"))
        if stored is None or stored.version != secret.version:
            raise Conflict(f"secret {secret.name!r}: version {secret.version} is not the one that is stored")
        self._bound.data.secrets[secret.name] = attrs.evolve(secret, updated_at=stored.updated_at)

    async def get(self, name: str) -> Secret | None:
        return self._bound.data.secrets.get(check_name(name, "secret"))

    async def list(self) -> Sequence[Secret]:
        return [secret for _, secret in sorted(self._bound.data.secrets.items())]

    async def delete(self, name: str) -> bool:
        return self._bound.data.secrets.pop(check_name(name, "secret"), None) is not None


class Variables(Part):
    """See :class:`~orchestrator_server.storage.Variables`."""

    async def put(self, variable: Variable) -> Variable:
        check_name(variable.name, "variable")
        value = wire.from_text(wire.to_text(variable.value))
        put = self._bound.data.variables[variable.name] = Variable(variable.name, value, self._bound.now())
        return put

    async def get(self, name: str) -> Variable | None:
        return self._bound.data.variables.get(check_name(name, "variable"))

    async def list(self) -> Sequence[Variable]:
        return [variable for _, variable in sorted(self._bound.data.variables.items())]

    async def delete(self, name: str) -> bool:
        return self._bound.data.variables.pop(check_name(name, "variable"), None) is not None


class Schedules(Part):
    """See :class:`~orchestrator_server.storage.Schedules`."""

    async def put(self, schedule: Schedule) -> None:
        check_id(schedule.id, "schedule")
        check_id(schedule.workflow, "workflow")
        self._bound.data.schedules[schedule.id] = schedule
        self._bound.world.ring()

    async def replace(self, schedule: Schedule, *, before: Schedule | None) -> None:
        check_id(schedule.workflow, "workflow")
        if self._bound.data.schedules.get(check_id(schedule.id, "schedule")) != before:
            raise Conflict(f"schedule {schedule.id!r}: it is not as it was read")
        if before is None and await Workflows(self._bound).get(schedule.workflow) is None:
            raise NotFound(f"there is no workflow {schedule.workflow!r}")
        await self.put(schedule)

    async def get(self, schedule_id: str) -> Schedule | None:
        return self._bound.data.schedules.get(check_id(schedule_id, "schedule"))

    async def list(self) -> Sequence[Schedule]:
        return [schedule for _, schedule in sorted(self._bound.data.schedules.items())]

    async def delete(self, schedule_id: str) -> bool:
        return _drop_schedule(self._bound.data, check_id(schedule_id, "schedule"))

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
        data = self._bound.data
        schedule = data.schedules.get(check_id(schedule_id, "schedule"))
        if new is not None:
            check_new(new)
        if schedule is None:
            raise NotFound(f"there is no schedule {schedule_id!r}")
        if (schedule_id, slot) in data.slots:
            return None
        if before is not None and schedule != before:
            raise Conflict(f"schedule {schedule_id!r}: it is not as it was read")
        created = create(self._bound, new) if new is not None else None
        execution_id = created.execution.id if created is not None else None
        data.slots[schedule_id, slot] = Slot(schedule_id, slot, execution_id)
        data.schedules[schedule_id] = attrs.evolve(
            schedule, next_at=next_at, state=schedule.state if state is None else state
        )
        self._bound.world.ring()
        return created

    async def slots(self, schedule_id: str, *, limit: int = 100) -> Sequence[Slot]:
        check_id(schedule_id, "schedule")
        slots = [slot for slot in self._bound.data.slots.values() if slot.schedule_id == schedule_id]
        return sorted(slots, key=lambda slot: -slot.at)[:limit]


class Webhooks(Part):
    """See :class:`~orchestrator_server.storage.Webhooks`."""

    async def get(self, method: str, path: str) -> Webhook | None:
        key = (check_text(method, "method", 16), check_text(path, "path", 512))
        return self._bound.data.webhooks.get(key)

    async def list(self) -> Sequence[Webhook]:
        return sorted(self._bound.data.webhooks.values(), key=lambda hook: (hook.path, hook.method))

    async def came(self, signature: str) -> str | None:
        key, until = self._bound.data.signatures.get(signature, (None, 0.0))
        return key if until > self._bound.now() else None

    async def note(self, signature: str, key: str, seconds: float) -> str:
        noted, now = self._bound.data.signatures, self._bound.now()
        for old in [name for name, (_, until) in noted.items() if until <= now]:
            del noted[old]
        return noted.setdefault(signature, (key, now + seconds))[0]


class BlobStore(Part):
    """See :class:`~orchestrator_server.storage.BlobStore`."""

    async def put(self, data: bytes, *, media_type: str = "application/octet-stream") -> str:
        reference = blob_reference(data, media_type)
        blob = Blob(reference, media_type, len(data), self._bound.now())
        self._bound.data.blobs[reference] = (blob, bytes(data))
        return reference

    async def get(self, reference: str) -> bytes:
        found = self._bound.data.blobs.get(check_text(reference, "reference"))
        if found is None:
            raise NotFound(f"there is no blob {reference!r}")
        return found[1]

    async def info(self, reference: str) -> Blob | None:
        found = self._bound.data.blobs.get(check_text(reference, "reference"))
        return None if found is None else found[0]

    async def prune(self, put_before: float, *, limit: int = 50) -> int:
        every = sorted((blob.created_at, reference) for reference, (blob, _) in self._bound.data.blobs.items())
        old = [reference for at, reference in every if at < put_before][:limit]
        for reference in old:
            del self._bound.data.blobs[reference]
        return len(old)

    async def delete(self, reference: str) -> bool:
        return self._bound.data.blobs.pop(check_text(reference, "reference"), None) is not None
