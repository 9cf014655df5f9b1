"""What the parts of the storage in memory share."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import attrs

from orchestrator_server.errors import NotFound
from orchestrator_server.records import (
    Blob,
    ExecutionRow,
    Key,
    Message,
    Outcome,
    Schedule,
    Secret,
    Slot,
    Tenant,
    Variable,
    Version,
    Webhook,
    WorkflowRow,
)

__all__ = ["Bound", "Data", "Execution", "Part", "World"]


@attrs.define(eq=False)
class Execution:
    """An execution with all it has."""

    row: ExecutionRow
    events: list[str] = attrs.field(factory=list)  # JSON
    inbox: dict[str, Message] = attrs.field(factory=dict)
    outcome: Outcome | None = None


@attrs.define(eq=False)
class Data:
    """What a tenant has."""

    tenant: Tenant
    workflows: dict[str, WorkflowRow] = attrs.field(factory=dict)
    versions: dict[tuple[str, int], Version] = attrs.field(factory=dict)
    executions: dict[str, Execution] = attrs.field(factory=dict)
    keys: dict[str, tuple[str, str]] = attrs.field(factory=dict)  # idempotency key -> execution, fingerprint
    secrets: dict[str, Secret] = attrs.field(factory=dict)
    variables: dict[str, Variable] = attrs.field(factory=dict)
    schedules: dict[str, Schedule] = attrs.field(factory=dict)
    slots: dict[tuple[str, float], Slot] = attrs.field(factory=dict)
    webhooks: dict[tuple[str, str], Webhook] = attrs.field(factory=dict)
    signatures: dict[str, tuple[str, float]] = attrs.field(factory=dict)  # -> key, until when
    blobs: dict[str, tuple[Blob, bytes]] = attrs.field(factory=dict)


@attrs.define(eq=False)
class World:
    """All there is, shared by the parts."""

    now: Callable[[], float]
    tenants: dict[str, Data] = attrs.field(factory=dict)
    keys: dict[str, Key] = attrs.field(factory=dict)
    bells: set[anyio.Event] = attrs.field(factory=set)

    def data(self, tenant_id: str) -> Data:
        """What a tenant has."""
        data = self.tenants.get(tenant_id)
        if data is None:
            raise NotFound(f"there is no tenant {tenant_id!r}")
        return data

    def ring(self) -> None:
        """Something may be due."""
        for bell in self.bells:
            bell.set()
        self.bells.clear()


@attrs.frozen
class Bound:
    """A tenant's data, looked up anew each time: it may have been deleted."""

    world: World
    tenant: str

    @property
    def data(self) -> Data:
        return self.world.data(self.tenant)

    def now(self) -> float:
        return self.world.now()


@attrs.frozen
class Part:
    """A part of a tenant's store."""

    _bound: Bound
