"""Error workflows: what a tenant starts when an execution fails.

A tenant's settings name one for all its workflows (``error_workflow``) and others for single ones (``error_workflows``). It gets
``{execution, workflow, error}``. Its execution's id comes from that of the failed one, so there is one for each failure,
however often somebody sees to it: the worker does at once, and a sweep finds what a crash left out, and what went into quarantine.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from typing import Final

from orchestrator_core.errors import DocumentError
from orchestrator_core.types import Json
from orchestrator_server.errors import Exists, Invalid, NotFound
from orchestrator_server.realms import Realms, TenantSettings
from orchestrator_server.records import ExecutionQuery, NewExecution
from orchestrator_server.storage import Storage, every_tenant

__all__ = ["ErrorWorkflows", "error_execution_id"]

_LOG = logging.getLogger(__name__)
_PREFIX: Final = "exe_error_"
_PAGE: Final = 100


def error_execution_id(execution_id: str, quarantine: int = 0) -> str:
    """The id of the execution that is started because this one failed.

    Args:
        execution_id: Which.
        quarantine: Its fence, where it went into quarantine: it may be revived, and fail again.
    """
    failed = f"{execution_id}/{quarantine}" if quarantine else execution_id
    return f"{_PREFIX}{hashlib.sha256(failed.encode()).hexdigest()[:32]}"


class ErrorWorkflows:
    """Starts error workflows. Executions of error workflows start none, nor do children: their parents fail."""

    def __init__(self, storage: Storage, realms: Realms) -> None:
        self._storage = storage
        self._realms = realms

    async def failed(
        self, tenant: str, execution_id: str, workflow: str, error: Json, *, quarantine: int = 0
    ) -> str | None:
        """An execution has failed: start what the tenant wants to be started. Returns its id, where there is one.

        For ``quarantine`` see :func:`error_execution_id`.
        """
        if execution_id.startswith(_PREFIX):
            return None
        name = (await self._realms.settings(tenant)).error_workflow_of(workflow)
        if name is None:
            return None
        store = await self._realms.store(tenant)
        started = error_execution_id(execution_id, quarantine)
        if await store.executions.get(started) is not None:
            return started
        payload = {"execution": execution_id, "workflow": workflow, "error": error}
        try:
            document = await self._realms.workflow(tenant, name)
            realm = await self._realms.for_execution(tenant, document)
            manual = [node.id for node in document.nodes if node.type == "manual"]
            # Where there are several triggers, one for starts by hand is meant.
            start = manual[0] if len(manual) == 1 else None
            event = realm.accept(document, payload, start=start, execution_id=started)
        except (NotFound, Invalid, DocumentError) as fault:
            extra = {"tenant": tenant, "execution": execution_id}
            _LOG.warning("the error workflow %r of %r cannot start: %s", name, workflow, fault, extra=extra)
            return None
        with contextlib.suppress(Exists):  # somebody else was quicker
            created = await store.executions.create(NewExecution(event, parent=execution_id))
            if created.new:
                self._realms.metrics.accepted("error")
        return started

    async def sweep(self, window: float) -> int:
        """Look at what has failed within the last ``window`` seconds in all tenants, and start what was not started.

        Returns how many executions were looked at.
        """
        since = await self._storage.now() - window
        looked = 0
        async for tenant in every_tenant(self._storage):
            try:
                settings = TenantSettings.of(tenant.settings)
                if settings.error_workflow is not None or settings.error_workflows:
                    looked += await self._sweep(tenant.id, since)
            except (Invalid, NotFound) as fault:  # bad settings, or it was deleted meanwhile
                _LOG.warning("error workflows of a tenant: %s", fault, extra={"tenant": tenant.id})
        return looked

    async def _sweep(self, tenant: str, since: float) -> int:
        store = await self._realms.store(tenant)
        query = ExecutionQuery(statuses=("failed",), sort="finished_at", since=since, limit=_PAGE)
        looked = 0
        while True:
            page = await store.executions.list(query)
            for row in page.executions:
                looked += 1
                if row.queued:
                    outcome = await store.executions.outcome(row.id)
                    error = None if outcome is None else outcome.error
                    quarantine = row.fence if row.quarantined else 0
                    await self.failed(tenant, row.id, row.workflow, error, quarantine=quarantine)
            if page.next is None:
                return looked
            query = ExecutionQuery(statuses=("failed",), sort="finished_at", since=since, limit=_PAGE, after=page.next)
