"""Storage in memory: the reference by which the others are judged, and what tests of other parts use.

Plain dictionaries, no locks: all of it belongs to one event loop, and no method suspends half way. Nothing in it is random, and
time is what the clock that it was given says.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from orchestrator_server.memory.definitions import BlobStore, Schedules, Secrets, Variables, Webhooks, Workflows
from orchestrator_server.memory.executions import Executions, Inbox, MemoryJournal
from orchestrator_server.memory.system import Keys, Queue, Tenants
from orchestrator_server.memory.world import Bound, World
from orchestrator_server.records import (
    check_id,
)
from orchestrator_server.storage import Storage

__all__ = ["MemoryStorage", "MemoryTenantStore"]


class MemoryStorage:
    """See :class:`~orchestrator_server.storage.Storage`.

    Args:
        now: The time, in seconds since 1970.
    """

    def __init__(self, *, now: Callable[[], float] = time.time) -> None:
        self._world = World(now)
        self.tenants = Tenants(self._world)
        self.keys = Keys(self._world)
        self.queue = Queue(self._world)

    async def store(self, tenant_id: str) -> MemoryTenantStore:
        """See the protocol."""
        self._world.data(check_id(tenant_id, "tenant"))
        return MemoryTenantStore(self._world, tenant_id)

    async def now(self) -> float:
        """See the protocol."""
        return self._world.now()

    async def check(self) -> None:
        """See the protocol."""

    async def aclose(self) -> None:
        """See the protocol. What is in memory is gone."""
        self._world.tenants.clear()
        self._world.keys.clear()


class MemoryTenantStore:
    """See :class:`~orchestrator_server.storage.TenantStore`."""

    def __init__(self, world: World, tenant_id: str) -> None:
        self.tenant = tenant_id
        bound = Bound(world, tenant_id)
        self.workflows = Workflows(bound)
        self.executions = Executions(bound)
        self.journal = MemoryJournal(bound)
        self.inbox = Inbox(bound)
        self.secrets = Secrets(bound)
        self.variables = Variables(bound)
        self.schedules = Schedules(bound)
        self.webhooks = Webhooks(bound)
        self.blobs = BlobStore(bound)


if TYPE_CHECKING:

    def _keeps(storage: MemoryStorage) -> Storage:
        """The type checkers' proof that it has what the protocol asks for."""
        return storage
