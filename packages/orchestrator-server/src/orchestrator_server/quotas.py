"""What a tenant may have at most, judged where something new comes in: executions that have not ended, and bytes that are kept.

Neither is counted for each execution. Executions are counted in the database once a second at most, up to the limit, and those that
were let in since are added: so of several processes each may let in what the others let in within that second. Bytes are measured
by the scheduler (:meth:`~orchestrator_server.storage.Tenants.measure`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Final

import anyio
import attrs

from orchestrator_server.errors import StorageFull, TooMany
from orchestrator_server.records import Tenant
from orchestrator_server.storage import TenantStore

__all__ = ["Quotas"]

_FRESH: Final = 1.0  # seconds for which a count holds while there is room
_AGAIN: Final = 0.1  # where there is none: it may have been made meanwhile


@attrs.define(eq=False)
class _Count:
    unfinished: int = 0
    coming: int = 0  # of them, those that the database may not show yet
    at: float = float("-inf")  # by the monotonic clock
    lock: anyio.Lock = attrs.field(factory=anyio.Lock)

    def holds(self, most: int) -> bool:
        age = time.monotonic() - self.at
        return age < (_FRESH if self.unfinished < most else _AGAIN)


_FREE: Final = contextlib.nullcontext()  # for tenants without a limit


class Quotas:
    """The quotas of all tenants, as one process sees them."""

    def __init__(self) -> None:
        self._counts: dict[str, _Count] = {}

    def place(self, tenant: Tenant, store: TenantStore) -> AbstractAsyncContextManager[None]:
        """A place for one more execution: it is created inside. To enter it raises `TooMany` where too many have not ended.

        Raises:
            StorageFull: The tenant keeps too much.
        """
        self.check_storage(tenant)
        most = tenant.limits.queued
        return _FREE if most is None else self._counted(tenant, most, store)

    @contextlib.asynccontextmanager
    async def _counted(self, tenant: Tenant, most: int, store: TenantStore) -> AsyncIterator[None]:
        count = self._counts.setdefault(tenant.id, _Count())
        if not count.holds(most):
            async with count.lock:
                if not count.holds(most):
                    at, coming = time.monotonic(), count.coming
                    count.unfinished = await store.executions.unfinished(most) + coming
                    count.at = at
        if count.unfinished >= most:
            raise TooMany("this tenant has as many executions that have not ended as it may: ask again in a moment")
        count.unfinished += 1
        count.coming += 1
        try:
            yield
        finally:
            count.coming -= 1

    @staticmethod
    def check_storage(tenant: Tenant) -> None:
        """See to it that the tenant may keep more.

        Raises:
            StorageFull: It keeps too much already.
        """
        most = tenant.limits.storage
        if most is not None and tenant.size is not None and tenant.size >= most:
            raise StorageFull(
                "this tenant keeps as much as it may: nothing new is taken in until executions or blobs are forgotten, or its "
                "limit is raised"
            )

    def drop(self, tenant_id: str) -> None:
        """Forget what is known of a tenant."""
        self._counts.pop(tenant_id, None)
