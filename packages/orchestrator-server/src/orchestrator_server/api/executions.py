"""The routes of executions."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from secrets import token_hex
from typing import Any

import anyio
from starlette.responses import Response, StreamingResponse

from orchestrator_core import Event, Workflow
from orchestrator_core.admission import exists
from orchestrator_core.codec import dump_json
from orchestrator_core.errors import DocumentError, Fault, OrchestratorError
from orchestrator_core.events import ExecutionStarted
from orchestrator_core.journal import event_to_json
from orchestrator_core.types import Json
from orchestrator_server.api.following import (
    Quiet,
    body_of,
    ended_body,
    find_execution,
    follow,
    plan_of,
    summary_of,
)
from orchestrator_server.api.problems import Problem
from orchestrator_server.api.shapes import (
    Accepted,
    CancelRequest,
    ExecuteRequest,
    RetryRequest,
    Revived,
    SignalRequest,
    Started,
)
from orchestrator_server.api.starting import fingerprint_of, life_of, stored_key
from orchestrator_server.api.table import Call, Reply
from orchestrator_server.approvals import hide_links
from orchestrator_server.auth import select_tenant
from orchestrator_server.errors import NotFound
from orchestrator_server.handles import Handle
from orchestrator_server.records import ExecutionQuery, ExecutionRow, Message, check_id

__all__ = [
    "cancel_execution",
    "check_path",
    "execute",
    "execution_events",
    "get_execution",
    "list_executions",
    "retry_execution",
    "revive_execution",
    "send_signal",
    "workflow_logs",
]

_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*(\d{1,5})\s*(?=$|[,;])")
_ASYNC = re.compile(r"(?:^|[,;])\s*respond-async\s*(?=$|[,;])")


# --- running ----------------------------------------------------------------------------------------------------------


async def execute(call: Call) -> Reply:
    """Run a workflow and answer with its records; 202 where that takes too long, or is not wanted."""
    request: ExecuteRequest = call.body
    workflow_id = call.path["workflow_id"]
    workflow = await call.services.realms.startable(call.tenant, workflow_id, request.version)
    key = call.header("idempotency-key")
    fingerprint = fingerprint_of(
        workflow_id, request.payload, request.start, request.version, request.pins, request.seed
    )
    services = call.services
    stored = None if key is None else stored_key("api", await life_of(call.store, workflow_id), key)
    handle = await services.worker.execute(
        call.tenant,
        workflow,
        request.payload,
        start=request.start,
        pins=request.pins,
        seed=request.seed,
        idempotency_key=stored,
        fingerprint="" if key is None else fingerprint,
    )
    if handle.created.new:
        services.metrics.accepted("api")
    elif handle.created.fingerprint != fingerprint:
        raise Problem(422, "idempotency_mismatch", "this idempotency key was used for another request: take a new one")
    return await _answer(call, handle)


async def _answer(call: Call, handle: Handle) -> Reply:
    """The execution when it has ended; that it was accepted, where that takes too long or is not waited for."""
    services = call.services
    call.told.execution = handle.id
    headers = {"Location": call.url(f"/executions/{handle.id}")}
    prefer = call.header("prefer") or ""
    if _ASYNC.search(prefer) is not None:
        headers["Preference-Applied"] = "respond-async"
    else:
        wanted = _WAIT.search(prefer)
        seconds = services.patience if wanted is None else min(services.patience, float(wanted[1]))
        answer = await handle.wait(seconds)
        if answer.kind == "ended":
            return Reply(await ended_body(services, call.store, handle, answer), 200, headers)
    row = await find_execution(call.store, handle.id)
    return Reply(Started(row.id, row.status), 202, headers)


async def retry_execution(call: Call) -> Reply:
    """Run an execution's version again with its payload, from a node on or as a whole."""
    request: RetryRequest = call.body
    row = await find_execution(call.store, call.path["execution_id"])
    if row.finished_at is None:
        raise Problem(409, "unfinished", "it has not ended yet: cancel it first, or wait", execution_id=row.id)
    started = await _start_of(call, row)
    workflow = await call.services.realms.startable(call.tenant, row.workflow, row.version)
    pins: dict[str, Any] = dict(started.pins)
    if request.node is not None:
        again = _after(workflow, request.node)
        body = await body_of(call.services, call.store, row)
        kept = {path: ports for path, ports in pins.items() if path.partition("/")[0] not in again}
        pins = _kept(again, body["nodes"]) | kept
    handle = await call.services.worker.execute(
        call.tenant, workflow, started.payload, start=started.start, pins=pins, parent=row.id
    )
    call.services.metrics.accepted("retry")
    return await _answer(call, handle)


async def _start_of(call: Call, row: ExecutionRow) -> ExecutionStarted:
    events = await call.store.journal.read(call.tenant, row.id)
    if not events or not isinstance(events[0], ExecutionStarted):
        raise NotFound(f"the events of {row.id} are not kept any more")
    return events[0]


def _after(workflow: Workflow, node: str) -> set[str]:
    """A node and all that is downstream of it.

    Raises:
        DocumentError: There is no such node.
    """
    if all(node != known.id for known in workflow.nodes):
        raise DocumentError([Fault(f"workflow {workflow.id!r} has no node {node!r}", "$.node")])
    follow_: dict[str, list[str]] = {}
    for source, target in zip(workflow.edges.sources, workflow.edges.targets, strict=True):
        follow_.setdefault(source, []).append(target)
    found, todo = {node}, [node]
    while todo:
        for target in follow_.get(todo.pop(), ()):
            if target not in found:
                found.add(target)
                todo.append(target)
    return found


def _kept(again: set[str], records: Any) -> dict[str, Any]:
    """What everything gave that does not run again."""
    return {
        record["path"]: dict(record["outputs"])
        for record in records
        if "/" not in record["path"]
        and record["path"] not in again
        and (record["outputs"] or record["status"] == "succeeded")
    }


# --- reading ----------------------------------------------------------------------------------------------------------


async def list_executions(call: Call) -> Reply:
    """A page of the tenant's executions."""
    page = await call.store.executions.list(_query(call, call.query["workflow"]))
    return Reply({"executions": [summary_of(row) for row in page.executions], "next": page.next})


def _query(call: Call, workflow: str | None) -> ExecutionQuery:
    query = call.query
    if workflow is not None:
        check_id(workflow, "workflow")
    return ExecutionQuery(
        workflow=workflow,
        statuses=tuple(query["status"]),
        sort=query["sort"],
        since=query["since"],
        before=query["before"],
        after=query["cursor"],
        limit=query["limit"],
    )


async def workflow_logs(call: Call) -> Reply:
    """A page of a workflow's executions, with their node records."""
    workflow_id = call.path["workflow_id"]
    page = await call.store.executions.list(_query(call, workflow_id))
    if not page.executions and await call.store.workflows.version(workflow_id, 1) is None:
        raise NotFound(f"there is no workflow {workflow_id!r}")
    bodies = [await body_of(call.services, call.store, row) for row in page.executions]
    return Reply({"executions": bodies, "next": page.next})


async def get_execution(call: Call) -> Reply:
    """One execution with its node records, as it stands."""
    row = await find_execution(call.store, call.path["execution_id"])
    return Reply(await body_of(call.services, call.store, row))


# --- messages ---------------------------------------------------------------------------------------------------------


async def cancel_execution(call: Call) -> Reply:
    """Ask for an execution, or a group in it, to be cancelled."""
    request: CancelRequest = call.body
    return await _post(call, Message(f"cancel-{token_hex(8)}", "cancel", request.path))


async def revive_execution(call: Call) -> Reply:
    """Make an execution in quarantine due again: it goes on from where it was."""
    row = await find_execution(call.store, call.path["execution_id"])
    if not await call.services.storage.queue.revive(call.tenant, row.id):
        raise Problem(409, "not_quarantined", "the execution is not in quarantine", execution_id=row.id)
    return Reply(Revived(row.id), 202, {"Location": call.url(f"/executions/{row.id}")})


async def send_signal(call: Call) -> Reply:
    """Leave a signal for a node of an execution."""
    request: SignalRequest = call.body
    message_id = request.id if request.id is not None else f"signal-{token_hex(8)}"
    return await _post(call, Message(message_id, "signal", request.path, call.path["name"], request.payload))


async def _post(call: Call, message: Message) -> Reply:
    row = await find_execution(call.store, call.path["execution_id"])
    if message.path:
        await check_path(call, row, message.path)
    new = await call.store.inbox.post(row.id, message)
    if not new:
        row = await find_execution(call.store, row.id)
        root: ExecutionRow | None = row
        while root is not None and not root.queued and root.parent is not None:
            root = await call.store.executions.get(root.parent)
        for one, what in ((row, "the execution"), (root, "what drives the execution")):
            if one is not None and one.finished_at is not None:
                raise Problem(409, "ended", f"{what} has ended: it is {one.status}", execution_id=row.id)
    return Reply(Accepted(row.id, new), 202, {"Location": call.url(f"/executions/{row.id}")})


async def check_path(call: Call, row: ExecutionRow, path: str) -> None:
    """See that an execution has a node: the worker that finds out later has nobody to tell.

    Raises:
        DocumentError: It has not.
    """
    plan = await plan_of(call.services, call.store, row, await _start_of(call, row))
    if not exists(plan, path):
        raise DocumentError([Fault("the execution has no node with this path", "$.path")])


# --- events -----------------------------------------------------------------------------------------------------------


async def execution_events(call: Call) -> Response:
    """The events of an execution as they are committed, as server-sent events."""
    row = await find_execution(call.store, call.path["execution_id"])
    last = call.header("last-event-id")
    if last is not None and not re.fullmatch(r"[0-9]{1,15}", last):
        raise Problem(400, "bad_request", "Last-Event-ID is no number of an event of this stream")
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    call.told.execution = row.id
    stream = _stream(call, row, int(last or 0))
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


async def _stream(call: Call, row: ExecutionRow, after: int) -> AsyncIterator[bytes]:
    """The stream. A credential that is withdrawn ends it, as it would refuse the next request; so does the server's end."""
    metrics = call.services.metrics
    metrics.streams += 1
    try:
        yield b"retry: 1000\n\n"
        async for part in _parts(call, row, after):
            yield part
    except NotFound:
        return  # the tenant was deleted
    finally:
        metrics.streams -= 1


async def _parts(call: Call, row: ExecutionRow, after: int) -> AsyncIterator[bytes]:
    limits = call.services.limits
    checked = spoken = anyio.current_time()
    async for item in follow(call.services, call.store, row.id, after=after):
        if call.services.draining:
            return  # whoever follows asks again, and goes on where this stream ends
        now = anyio.current_time()
        if now - checked >= limits.stream_check:
            checked = now
            if not await _still_allowed(call):
                return
        if isinstance(item, Quiet):
            if call.services.draining:
                return  # whoever follows goes on elsewhere, behind the last one that came
            if now - spoken >= limits.heartbeat:
                spoken = now
                yield b": still here\n\n"
            continue
        spoken = now
        yield _sse(*item, shown=call.principal.has("operator"))
    ended = await call.store.executions.get(row.id)
    if ended is not None:
        yield f"event: end\ndata: {dump_json(summary_of(ended))}\n\n".encode()


def _sse(number: int, event: Event, *, shown: bool) -> bytes:
    """Args: shown: whether links through which approvals are given can be used."""
    data: dict[str, Json] = event_to_json(event)
    text = dump_json(data) if shown else hide_links(dump_json(data))
    return f"id: {number}\nevent: {data['type']}\ndata: {text}\n\n".encode()


async def _still_allowed(call: Call) -> bool:
    headers = call.request.scope["headers"]
    try:
        principal = await call.services.authenticator.authenticate(headers)
        select_tenant(principal, headers)
    except OrchestratorError:
        return False
    return principal.has("viewer")
