"""Tenants, keys and the queue in memory."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import anyio
import attrs

from orchestrator_core.codec import unstructure
from orchestrator_server import wire
from orchestrator_server.errors import Exists, NotFound
from orchestrator_server.memory.world import Data, Execution, World
from orchestrator_server.records import (
    MOST_COUNTED,
    POISON_CLAIMS,
    POISONED,
    SUSPECT_CLAIMS,
    Backlog,
    Claim,
    DueSchedule,
    Key,
    Tenant,
    check_execution_id,
    check_id,
)

__all__ = ["Keys", "Queue", "Tenants"]


class Tenants:
    """See :class:`~orchestrator_server.storage.Tenants`."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def create(self, tenant: Tenant) -> Tenant:
        check_id(tenant.id, "tenant")
        every = self._world.tenants
        if tenant.id in every:
            raise Exists(f"there is a tenant {tenant.id!r} already")
        made = attrs.evolve(tenant, created_at=self._world.now())
        every[tenant.id] = Data(made)
        return made

    async def get(self, tenant_id: str) -> Tenant | None:
        data = self._world.tenants.get(check_id(tenant_id, "tenant"))
        return None if data is None else data.tenant

    async def list(self, *, after: str = "", limit: int = 100) -> Sequence[Tenant]:
        every = self._world.tenants
        return [every[key].tenant for key in sorted(every) if key > after][:limit]

    async def update(self, tenant_id: str, **changes: Any) -> Tenant:
        data = self._world.data(check_id(tenant_id, "tenant"))
        data.tenant = attrs.evolve(data.tenant, **changes)
        return data.tenant

    async def measure(self, tenant_id: str) -> int:
        data = self._world.data(check_id(tenant_id, "tenant"))
        size = sum(blob.size for blob, _ in data.blobs.values())
        for execution in data.executions.values():
            size += sum(len(text.encode()) for text in execution.events)
            if execution.outcome is not None:
                size += len(wire.to_text(unstructure(execution.outcome)).encode())
        data.tenant = attrs.evolve(data.tenant, size=size)
        return size

    async def delete(self, tenant_id: str) -> None:
        self._world.data(check_id(tenant_id, "tenant"))
        del self._world.tenants[tenant_id]
        keys = self._world.keys
        for key in [key for key in keys.values() if key.tenant == tenant_id]:
            del keys[key.id]


class Keys:
    """See :class:`~orchestrator_server.storage.Keys`."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def create(self, key: Key) -> None:
        check_id(key.id, "key")
        if key.tenant is not None:
            self._world.data(check_id(key.tenant, "tenant"))
        if key.id in self._world.keys:
            raise Exists(f"there is a key {key.id!r} already")
        self._world.keys[key.id] = key

    async def get(self, key_id: str) -> Key | None:
        return self._world.keys.get(check_id(key_id, "key"))

    async def list(self, tenant_id: str | None) -> Sequence[Key]:
        return sorted((key for key in self._world.keys.values() if key.tenant == tenant_id), key=lambda key: key.id)

    async def revoke(self, key_id: str, at: float) -> None:
        key = await self.get(key_id)
        if key is None:
            raise NotFound(f"there is no key {key_id!r}")
        if key.revoked_at is None:
            self._world.keys[key_id] = attrs.evolve(key, revoked_at=at)

    async def delete(self, key_id: str) -> None:
        self._world.keys.pop(check_id(key_id, "key"), None)


class Queue:
    """See :class:`~orchestrator_server.storage.Queue`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._last = ""  # the tenant that was served last

    async def claim(self, worker: str, limit: int, lease: float, *, suspects: bool = False) -> Sequence[Claim]:
        now = self._world.now()
        every = self._world.tenants
        order = sorted(every, key=lambda key: (key <= self._last, key))
        lines: dict[str, list[Execution]] = {}
        for tenant_id in order:
            executions = every[tenant_id].executions.values()
            due = [e for e in executions if e.row.wake_at is not None and e.row.wake_at <= now]
            due = [e for e in due if suspects == (SUSPECT_CLAIMS <= e.row.claims < POISON_CLAIMS)]
            due.sort(key=lambda e: (e.row.wake_at or 0.0, e.row.id))
            most = every[tenant_id].tenant.limits.running
            if most is not None:
                held = sum(e.row.worker is not None and (e.row.wake_at or 0.0) > now for e in executions)
                due = due[: max(0, most - held)]
            if due:
                lines[tenant_id] = due
        taken: list[Claim] = []
        while lines and len(taken) < limit:
            for tenant_id in [*lines]:
                execution = lines[tenant_id].pop(0)
                if not lines[tenant_id]:
                    del lines[tenant_id]
                claim = _take(execution, tenant_id, worker, now, lease)
                if claim is not None:
                    self._last = tenant_id
                    taken.append(claim)
                    if len(taken) == limit:
                        break
        return taken

    async def renew(self, claims: Collection[Claim], lease: float) -> Sequence[Claim]:
        until = self._world.now() + lease
        held = []
        for claim in claims:
            execution = self._held(claim)
            if execution is not None:
                execution.row = attrs.evolve(execution.row, wake_at=until)
                held.append(attrs.evolve(claim, lease_until=until))
        return held

    async def release(
        self,
        claim: Claim,
        *,
        wake_in: float | None,
        waiting: bool = False,
        failed: bool = False,
        children: Collection[str] = (),
    ) -> bool:
        execution = self._held(claim)
        if execution is None:
            return False
        now = self._world.now()
        every = self._world.tenants[claim.tenant].executions
        family = [every[name] for name in (claim.execution_id, *children) if name in every]
        mail = waiting and any(one.inbox for one in family)
        wake_at = now if mail else None if wake_in is None else now + wake_in
        execution.row = attrs.evolve(
            execution.row,
            worker=None,
            wake_at=wake_at,
            claims=execution.row.claims if failed else 0,
        )
        for one in family if waiting else ():
            if one.row.status == "running":
                one.row = attrs.evolve(one.row, status="waiting")
        if wake_at is not None and wake_at <= now:
            self._world.ring()
        return True

    def _held(self, claim: Claim) -> Execution | None:
        data = self._world.tenants.get(claim.tenant)
        execution = data.executions.get(claim.execution_id) if data else None
        if execution is None or execution.row.worker != claim.worker or execution.row.fence != claim.fence:
            return None
        return execution

    async def revive(self, tenant_id: str, execution_id: str) -> bool:
        data = self._world.tenants.get(check_id(tenant_id, "tenant"))
        execution = data.executions.get(check_execution_id(execution_id)) if data else None
        if execution is None or not execution.row.quarantined:
            return False
        execution.row = attrs.evolve(
            execution.row, status="running", claims=0, finished_at=None, error_code=None, wake_at=self._world.now()
        )
        self._world.ring()
        return True

    async def next_due(self) -> float | None:
        times = [
            execution.row.wake_at
            for data in self._world.tenants.values()
            for execution in data.executions.values()
            if execution.row.wake_at is not None
        ]
        return max(0.0, min(times) - self._world.now()) if times else None

    async def backlog(self) -> Backlog:
        now = self._world.now()
        rows = [execution.row for data in self._world.tenants.values() for execution in data.executions.values()]
        due = [row.wake_at for row in rows if row.wake_at is not None and row.wake_at <= now]
        return Backlog(min(len(due), MOST_COUNTED), now - min(due, default=now))

    async def mail(self, worker: str) -> Sequence[tuple[str, str]]:
        return [
            (tenant_id, execution.row.id)
            for tenant_id, data in sorted(self._world.tenants.items())
            for execution in sorted(data.executions.values(), key=lambda execution: execution.row.id)
            if execution.row.worker == worker and execution.inbox
        ]

    async def due_schedules(self, limit: int = 100) -> Sequence[DueSchedule]:
        now = self._world.now()
        due = [
            DueSchedule(tenant_id, schedule.id, schedule.next_at)
            for tenant_id, data in self._world.tenants.items()
            for schedule in data.schedules.values()
            if schedule.enabled and schedule.next_at is not None and schedule.next_at <= now
        ]
        return sorted(due, key=lambda item: (item.next_at, item.tenant, item.schedule_id))[:limit]

    async def wait_for_work(self, timeout: float) -> bool:
        bell = anyio.Event()
        self._world.bells.add(bell)
        with anyio.move_on_after(timeout):
            await bell.wait()
        self._world.bells.discard(bell)
        return bell.is_set()


def _take(execution: Execution, tenant_id: str, worker: str, now: float, lease: float) -> Claim | None:
    row = execution.row
    if row.claims >= POISON_CLAIMS:
        execution.row = attrs.evolve(
            row,
            status="failed",
            error_code=POISONED,
            finished_at=now,
            fence=row.fence + 1,
            worker=None,
            wake_at=None,
        )
        return None
    execution.row = row = attrs.evolve(
        row, status="running", fence=row.fence + 1, claims=row.claims + 1, worker=worker, wake_at=now + lease
    )
    return Claim(
        tenant_id, row.id, row.workflow, row.version, worker, row.fence, row.seq, row.claims, lease_until=now + lease
    )
