"""Approvals: links to a page where a person answers a node that waits, without a credential.

Whoever opens the page changes nothing: programs open the links in mails. Only the form on it, sent once, answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import attrs
from starlette.responses import Response

from orchestrator_core import Event, Machine, Workflow
from orchestrator_core.codec import format_time
from orchestrator_core.errors import DocumentError, IllegalEvent
from orchestrator_core.events import ExecutionStarted, SignalReceived
from orchestrator_core.nodes import ApprovalAnswer
from orchestrator_core.types import Json, NodeStatus
from orchestrator_server.api.executions import check_path
from orchestrator_server.api.following import find_execution, plan_of
from orchestrator_server.api.pages import approval_form, told
from orchestrator_server.api.problems import Problem
from orchestrator_server.api.shapes import ApprovalRequest, DecisionForm
from orchestrator_server.api.table import Call, Reply
from orchestrator_server.approvals import Approval
from orchestrator_server.errors import NotFound
from orchestrator_server.records import ExecutionRow, Message, check_text
from orchestrator_server.storage import TenantStore

__all__ = ["answer_approval", "create_approval", "show_approval"]

_LONGEST = 2000  # characters of a comment
_LONGEST_TIME = 10 * 366 * 86400.0
_OPEN = frozenset({NodeStatus.PENDING, NodeStatus.RUNNING, NodeStatus.WAITING})


async def create_approval(call: Call) -> Reply:
    """Make links through which a person answers a node that waits for a signal, or will."""
    request: ApprovalRequest = call.body
    row = await find_execution(call.store, call.path["execution_id"])
    if row.finished_at is not None:
        raise Problem(409, "ended", f"the execution has ended: it is {row.status}", execution_id=row.id)
    check_text(request.signal, "signal", 1024)
    await check_path(call, row, request.path)
    if not 0 < request.expires <= _LONGEST_TIME:
        raise Problem(422, "invalid_document", "$.expires: must be more than nothing, and ten years at most")
    expires_at = await call.services.storage.now() + request.expires
    whole = Approval(call.tenant, row.id, request.path, request.signal, expires_at)
    links = call.services.links
    body: dict[str, Json] = {
        "url": links.url(whole),
        "approve_url": links.url(attrs.evolve(whole, answer="approve")),
        "reject_url": links.url(attrs.evolve(whole, answer="reject")),
        "expires_at": format_time(expires_at),
    }
    return Reply(body, 201)


async def show_approval(call: Call) -> Response:
    """The page where a person approves or rejects. Opening it answers nothing."""
    try:
        asked = await _open(call)
    except Problem as problem:
        return _problem(call, problem)
    until = datetime.fromtimestamp(asked.approval.expires_at, UTC)
    return approval_form(asked.asking, asked.node, f"{until:%d %B %Y, %H:%M} UTC", asked.approval.answer, _LONGEST)


async def answer_approval(call: Call) -> Response:
    """Answer, once: the node that waits gets `{approved, comment, at}`."""
    form: DecisionForm = call.body
    try:
        asked = await _open(call)
        await _answer(call, asked, form.answer, form.comment.replace("\r\n", "\n").strip())
    except Problem as problem:
        return _problem(call, problem)
    done = "Approved" if form.answer == "approve" else "Rejected"
    return told(done, "Your answer was passed on. You can close this page.")


# --- what is asked ----------------------------------------------------------------------------------------------------


@attrs.frozen
class _Asked:
    """What a link that still counts asks: ``asking`` is the workflow's name, ``node`` that of the node."""

    approval: Approval
    store: TenantStore
    row: ExecutionRow
    asking: str
    node: str


async def _open(call: Call) -> _Asked:
    """What the link in the path asks.

    Raises:
        Problem: It was not made here (404), is over (410), or was answered (409).
    """
    approval = call.services.links.read(call.path["token"])
    if approval is None:
        raise Problem(404, "not_found", "there is no such approval: see that the link is complete")
    if await call.services.storage.now() >= approval.expires_at:
        raise Problem(410, "expired", "this link is too old: ask for a new one")
    try:
        store = await call.services.realms.store(approval.tenant)
        row = await find_execution(store, approval.execution_id)
    except NotFound:
        raise _over() from None
    events = await store.journal.read(store.tenant, row.id)
    known = await _answers(store, approval, events)
    if known:
        raise _answered(known[0])
    if row.finished_at is not None or not events or not isinstance(events[0], ExecutionStarted):
        raise _over()
    try:
        workflow = await call.services.realms.workflow(store.tenant, row.workflow, row.version)
        machine = Machine(await plan_of(call.services, store, row, events[0]))
        machine.replay(events)
    except (NotFound, DocumentError, IllegalEvent):
        raise _over() from None
    if any(record.path == approval.path and record.status not in _OPEN for record in machine.node_ios()):
        raise _over()
    return _Asked(approval, store, row, workflow.name or workflow.id, _name_of(workflow, approval.path))


def _name_of(workflow: Workflow, path: str) -> str:
    """What a node is called: by its name, if it stands in the workflow itself and has one."""
    named = {node.id: node.name for node in workflow.nodes}
    ids = [part for part in path.split("/") if not part.isdecimal()]
    return named.get(path) or (ids[-1] if ids else path)


async def _answer(call: Call, asked: _Asked, answer: ApprovalAnswer, comment: str) -> None:
    """Send the signal.

    Raises:
        Problem: The link does not allow this answer, or somebody else was quicker.
    """
    approval, store = asked.approval, asked.store
    if approval.answer not in (None, answer):
        raise Problem(403, "forbidden", f"this link is there to {approval.answer}, and for nothing else")
    if len(comment) > _LONGEST:
        raise Problem(422, "invalid_document", f"the comment is too long: at most {_LONGEST} characters")
    at = format_time(await call.services.storage.now())
    payload: dict[str, Json] = {"approved": answer == "approve", "comment": comment, "at": at}
    message = Message(approval.signal_id, "signal", approval.path, approval.signal, payload)
    try:
        new = await store.inbox.post(asked.row.id, message)
    except NotFound:
        raise _over() from None
    # Another one may have been taken in since it was looked: then that one counts, and this one leads to nothing.
    known = await _answers(store, approval, await store.journal.read(store.tenant, asked.row.id))
    # One that is the same to the millisecond is another one all the same.
    if known and not (new and known[0] == payload):
        raise _answered(known[0])
    if not new and not known:
        raise _over()


async def _answers(store: TenantStore, approval: Approval, events: Sequence[Event]) -> list[Any]:
    """The answers that were given, the one that counts first: what was taken in, and what lies ready for that."""
    name = approval.signal_id
    taken = [event.payload for event in events if isinstance(event, SignalReceived) and event.id == name]
    waiting = await store.inbox.messages(approval.execution_id)
    return [*taken, *(message.payload for message in waiting if message.id == name)]


def _answered(payload: Any) -> Problem:
    given = payload if isinstance(payload, dict) else {}
    done = "approved" if given.get("approved") else "rejected"
    return Problem(409, "answered", f"this was answered already: it was {done}")


def _over() -> Problem:
    return Problem(410, "over", "nobody waits for this answer any more")


def _problem(call: Call, problem: Problem) -> Response:
    """A problem as a page for those who want to see one.

    Raises:
        Problem: They do not: for programs it is an answer like any other.
    """
    if "text/html" not in call.request.headers.get("accept", ""):
        raise problem
    titles = {404: "Not found", 409: "Answered already", 410: "Too late"}
    return told(
        titles.get(problem.status, "This cannot be done"),
        f"{problem.message[0].upper()}{problem.message[1:]}.",
        problem.status,
    )
