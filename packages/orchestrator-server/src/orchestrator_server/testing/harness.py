"""What a contract is run with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio
import attrs

from orchestrator_core.errors import OrchestratorError
from orchestrator_core.events import AttemptStarted, AttemptSucceeded, Event, ExecutionEnded, ExecutionStarted
from orchestrator_core.journal import Journal
from orchestrator_core.types import Attempt, ExecutionStatus, Json, NodeIO, NodeStatus
from orchestrator_server.records import Claim, ExecutionQuery, ExecutionRow, NewExecution, Tenant
from orchestrator_server.storage import Storage, TenantStore

__all__ = [
    "EVERYTHING",
    "LEASE",
    "Harness",
    "RoutedJournal",
    "claim_all",
    "claim_one",
    "ended",
    "new",
    "record",
    "refused",
    "row_of",
    "start",
    "step",
]

EVERYTHING = ExecutionQuery(sort="created_at", limit=500)
"""All executions that there are, oldest first."""
LEASE = 30.0
"""Seconds for which claims hold that are not to end by themselves."""


@attrs.frozen
class Harness:
    """A storage without tenants, and how time passes for it.

    Args:
        storage: What is judged.
        sleep: Lets so many seconds pass on the clock by which the storage judges leases.
    """

    storage: Storage
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep

    async def tenant(self, tenant_id: str = "t") -> TenantStore:
        """The store of a new tenant."""
        await self.storage.tenants.create(Tenant(tenant_id))
        return await self.storage.store(tenant_id)


@attrs.frozen
class RoutedJournal:
    """The journals of all tenants as one, for :func:`orchestrator_core.testing.check_journal`."""

    storage: Storage

    async def append(
        self, tenant: str, execution_id: str, expected_seq: int, fence: int, batch: Sequence[Event]
    ) -> None:
        """See :class:`~orchestrator_core.Journal`."""
        await (await self._of(tenant)).append(tenant, execution_id, expected_seq, fence, batch)

    async def read(self, tenant: str, execution_id: str, after: int = 0) -> Sequence[Event]:
        """See :class:`~orchestrator_core.Journal`."""
        return await (await self._of(tenant)).read(tenant, execution_id, after)

    async def _of(self, tenant: str) -> Journal:
        return (await self.storage.store(tenant)).journal


def start(
    execution_id: str, *, at: float = 1.0, workflow: str = "w", payload: Json = None, version: int | None = 1
) -> ExecutionStarted:
    """The start event of an execution."""
    return ExecutionStarted(at, execution_id, payload, workflow=workflow, version=version)


def new(execution_id: str, *, at: float = 1.0, workflow: str = "w", payload: Json = None) -> NewExecution:
    """An execution to be created."""
    return NewExecution(start(execution_id, at=at, workflow=workflow, payload=payload))


def step(number: int, *, at: float = 2.0, value: Json = None) -> list[Event]:
    """What an engine appends between two effectful nodes."""
    return [AttemptSucceeded(at, f"n{number}", 1, {"main": value}), AttemptStarted(at, f"n{number + 1}", 1)]


def ended(
    *, at: float = 3.0, status: ExecutionStatus = ExecutionStatus.SUCCEEDED, output: Json = None
) -> ExecutionEnded:
    """The last event of an execution."""
    return ExecutionEnded(at, status, output)


def record(value: Json = None) -> NodeIO:
    """The record of a node that succeeded at its first attempt."""
    attempts = (Attempt(1, 1.5, 2.0),)
    return NodeIO("n1", "n1", "set", NodeStatus.SUCCEEDED, value, value, {"main": value}, None, attempts, (), 1.5, 2.0)


async def claim_one(h: Harness, worker: str = "a", limit: int = 1, lease: float = LEASE) -> Claim:
    """Claim what is due; see that it is one execution."""
    (claim,) = await h.storage.queue.claim(worker, limit, lease)
    return claim


async def claim_all(h: Harness, lease: float = LEASE) -> Sequence[Claim]:
    """Claim whatever is due, suspects too."""
    queue = h.storage.queue
    return [*await queue.claim("a", 5, lease), *await queue.claim("a", 5, lease, suspects=True)]


async def row_of(store: TenantStore, execution_id: str) -> ExecutionRow:
    """The row of an execution that is there."""
    row = await store.executions.get(execution_id)
    if row is None:
        raise AssertionError(f"{execution_id} is not there")
    return row


async def refused(kind: type[OrchestratorError], call: Awaitable[Any], why: str, *, saying: str = "") -> None:
    """See that a call raises this error, and what its message says among other things."""
    try:
        await call
    except kind as error:
        if saying not in str(error):
            raise AssertionError(f"{error} does not say {saying}") from error
        return
    raise AssertionError(why)
