"""Executions seen from outside: their records as they stand, waiting for their end, and their events one by one.

An execution may run in this process or in another. What runs here is asked itself; of the rest the storage tells, which is
looked at again and again, less and less often.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import attrs

from orchestrator_core import Event, Machine
from orchestrator_core.codec import format_time
from orchestrator_core.errors import DocumentError, IllegalEvent
from orchestrator_core.events import ExecutionEnded, ExecutionStarted
from orchestrator_core.graph import Plan
from orchestrator_core.results import result_to_json
from orchestrator_core.types import Json
from orchestrator_server.api.table import Services
from orchestrator_server.errors import NotFound
from orchestrator_server.handles import Answer, Handle
from orchestrator_server.records import ExecutionRow
from orchestrator_server.storage import TenantStore

__all__ = ["Quiet", "body_of", "ended_body", "find_execution", "follow", "plan_of", "summary_of"]

_FIRST_LOOK = 0.01
_SLOWER = 1.5


@attrs.frozen
class Quiet:
    """Nothing came for a while; ``waiting`` says whether the execution only waits for a time or a signal."""

    waiting: bool


async def find_execution(store: TenantStore, execution_id: str) -> ExecutionRow:
    """An execution of the tenant.

    Raises:
        NotFound: It has none of this id.
    """
    row = await store.executions.get(execution_id)
    if row is None:
        raise NotFound(f"there is no execution {execution_id!r}")
    return row


def summary_of(row: ExecutionRow) -> dict[str, Json]:
    """An execution as lists show it."""
    return {
        "execution_id": row.id,
        "workflow": row.workflow,
        "version": row.version,
        "status": row.status,
        "error_code": row.error_code,
        "parent": row.parent,
        "created_at": format_time(row.created_at),
        "finished_at": format_time(row.finished_at),
    }


async def body_of(services: Services, store: TenantStore, row: ExecutionRow) -> dict[str, Json]:
    """An execution with its node records, as it stands; what it shows is committed."""
    outcome = await store.executions.outcome(row.id) if row.finished_at is not None else None
    if outcome is None or outcome.nodes is None:
        body = await _replayed(services, store, row)
    else:
        body = {"nodes": list(outcome.nodes), "started_at": format_time(row.created_at)}
    body |= {"execution_id": row.id, "workflow": row.workflow, "version": row.version}
    if row.finished_at is not None:
        body |= {"status": row.status, "finished_at": format_time(row.finished_at)}
        body |= {"output": outcome.output if outcome else None, "error": outcome.error if outcome else None}
    elif row.status == "waiting":
        body["status"] = row.status  # also where it is a child that waits
    return body


async def _replayed(services: Services, store: TenantStore, row: ExecutionRow) -> dict[str, Json]:
    """The records that the journal gives."""
    events = await store.journal.read(store.tenant, row.id)
    first = events[0] if events else None
    try:
        if isinstance(first, ExecutionStarted):
            machine = Machine(await plan_of(services, store, row, first))
            machine.replay(events)
            return result_to_json(machine.result())
    except (NotFound, DocumentError, IllegalEvent):
        pass  # a plugin brought its own kind of group, and is gone: what the list shows is all there is
    return {
        "status": row.status,
        "output": None,
        "error": None,
        "nodes": [],
        "started_at": format_time(row.created_at),
        "finished_at": format_time(row.finished_at),
    }


async def plan_of(services: Services, store: TenantStore, row: ExecutionRow, start: ExecutionStarted) -> Plan:
    """The plan of an execution, to read its journal with; see :meth:`~orchestrator_server.realms.Realms.outline`.

    Raises:
        NotFound: Its version is not there.
        DocumentError: It has no such start.
    """
    workflow = await services.realms.workflow(store.tenant, row.workflow, row.version)
    return services.realms.outline(workflow, start.start)


async def ended_body(services: Services, store: TenantStore, handle: Handle, answer: Answer) -> dict[str, Json]:
    """The body of an execution whose handle says that it has ended."""
    if answer.result is not None:
        return result_to_json(answer.result)
    return await body_of(services, store, await find_execution(store, handle.id))


async def follow(
    services: Services, store: TenantStore, execution_id: str, *, after: int = 0
) -> AsyncIterator[tuple[int, Event] | Quiet]:
    """Every committed event from number ``after`` on, with its number counted from 1, until the execution has ended.

    Where nothing comes it says so from time to time, so that whoever follows can do something else.
    """
    pause = _FIRST_LOOK
    while True:
        driver = services.engine.driver(execution_id)
        here = driver is not None and driver.realm.tenant == store.tenant
        row = None if here else await store.executions.get(execution_id)
        events = await store.journal.read(store.tenant, execution_id, after)
        for event in events:
            after += 1
            yield after, event
            if isinstance(event, ExecutionEnded):
                return
        if events:
            pause = _FIRST_LOOK
            continue
        # Seen before the events were read: what ended until then has all its events in the journal.
        if not here and (row is None or row.finished_at is not None):
            return
        if driver is not None and here:
            with anyio.move_on_after(services.limits.poll):
                await driver.wait_for_more(after)
            if driver.committed <= after and not driver.done:
                yield Quiet(driver.is_still())
        else:
            yield Quiet(row is not None and row.status == "waiting")
            await anyio.sleep(pause)
            pause = min(pause * _SLOWER, services.limits.poll)
