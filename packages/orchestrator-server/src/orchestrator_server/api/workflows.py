"""The routes of workflows. Saving judges a document; nothing of it is ever executed here."""

from __future__ import annotations

import re

import anyio.to_thread
import attrs

from orchestrator_core import Fault, Realm, Workflow
from orchestrator_core.codec import format_time
from orchestrator_core.errors import Conflict, DocumentError
from orchestrator_core.types import Json
from orchestrator_core.validation import validate_document
from orchestrator_server.api.problems import Problem
from orchestrator_server.api.shapes import ActivateRequest
from orchestrator_server.api.table import Call, Reply
from orchestrator_server.api.triggers import triggers_of, with_type_versions
from orchestrator_server.errors import Exists, NotFound
from orchestrator_server.records import Triggers, Version, WorkflowRow

__all__ = [
    "activate_workflow",
    "create_workflow",
    "delete_workflow",
    "get_version",
    "get_workflow",
    "list_versions",
    "list_workflows",
    "update_workflow",
]

# A document with so many nodes and edges is judged in a thread: others shall not wait for it.
_LARGE = 300


async def list_workflows(call: Call) -> Reply:
    """A page of workflows, by id."""
    limit: int = call.query["limit"]
    rows = await call.store.workflows.list(after=call.query["after"] or "", limit=limit + 1)
    shown = rows[:limit]
    after = shown[-1].id if len(rows) > limit else None
    return Reply({"workflows": [_summary(row) for row in shown], "next": after})


async def create_workflow(call: Call) -> Reply:
    """Save the first version of a workflow."""
    document: dict[str, Json] = call.body
    workflow = await _judge(call, document)
    row, version = await _save(call, workflow, document, expected=0)
    return Reply(_body(row, version), 201, {"Location": call.url(f"/workflows/{row.id}"), "ETag": _tag(row)})


async def get_workflow(call: Call) -> Reply:
    """A workflow with the document of its active version, or of its latest where none is active."""
    row = await _row(call)
    version = await call.store.workflows.version(row.id, row.active or row.latest)
    if version is None:
        raise NotFound(f"there is no workflow {row.id!r}")
    tag = _tag(row)
    if _names(call.header("if-none-match"), tag):
        return Reply(None, 304, {"ETag": tag})
    return Reply(_body(row, version), headers={"ETag": tag})


async def update_workflow(call: Call) -> Reply:
    """Save a further version of a workflow."""
    document: dict[str, Json] = call.body
    row = await _row(call)
    if document.get("id") != row.id:
        raise DocumentError([Fault(f"is not the id in the path: write {row.id!r}", "$.id")])
    expected = _expected(call, row)
    workflow = await _judge(call, document)
    row, version = await _save(call, workflow, document, expected=expected)
    return Reply(_body(row, version), headers={"ETag": _tag(row)})


async def delete_workflow(call: Call) -> Reply:
    """Delete a workflow, its triggers and schedules; past executions stay, what runs goes on."""
    row = await _row(call)
    try:
        await call.store.workflows.delete(row.id, expected=_expected(call, row))
    except Conflict:
        raise _changed(await _row(call)) from None
    call.services.realms.changed(call.tenant)
    return Reply(None, 204)


async def list_versions(call: Call) -> Reply:
    """A page of a workflow's versions, newest first."""
    row = await _row(call)
    limit: int = call.query["limit"]
    versions = await call.store.workflows.versions(row.id, before=call.query["before"], limit=limit + 1)
    shown = [
        {
            "version": version.number,
            "created_at": format_time(version.created_at),
            "created_by": version.created_by,
            "active": version.number == row.active,
        }
        for version in versions[:limit]
    ]
    return Reply({"versions": shown, "next": versions[limit - 1].number if len(versions) > limit else None})


async def get_version(call: Call) -> Reply:
    """One version with its document."""
    row = await _row(call)
    given = call.path["version"]
    number = int(given) if re.fullmatch(r"[1-9][0-9]{0,8}", given) else 0
    version = await call.store.workflows.version(row.id, number) if number else None
    if version is None or not row.has(version):
        raise NotFound(f"workflow {row.id!r} has no version {given}")
    return Reply(
        {
            "workflow": row.id,
            "version": version.number,
            "document": dict(version.document),
            "created_at": format_time(version.created_at),
            "created_by": version.created_by,
        }
    )


async def activate_workflow(call: Call) -> Reply:
    """Let the triggers of a version live, or of none."""
    request: ActivateRequest = call.body
    row = await _row(call)
    triggers = Triggers()
    if request.version is not None:
        workflow = await call.services.realms.startable(call.tenant, row.id, request.version)
        realm = await call.services.realms.get(call.tenant)
        if faults := realm.validate(workflow):
            raise DocumentError(faults)
        triggers = await _triggers(call, workflow)
    row = await call.store.workflows.activate(row.id, request.version, triggers)
    call.services.realms.changed(call.tenant)
    return Reply(_summary(row))


# --- parts ------------------------------------------------------------------------------------------------------------


async def _row(call: Call) -> WorkflowRow:
    row = await call.store.workflows.get(call.path["workflow_id"])
    if row is None:
        raise NotFound(f"there is no workflow {call.path['workflow_id']!r}")
    return row


async def _judge(call: Call, document: dict[str, Json]) -> Workflow:
    """The workflow of a document in which nothing is wrong.

    Raises:
        DocumentError: With everything that is wrong.
    """
    realm = await call.services.realms.get(call.tenant)

    def judge() -> Workflow:
        if faults := validate_document(document, realm.registry, stored=_stored(realm, document)):
            raise DocumentError(faults)
        return Workflow.from_dict(document)

    size = sum(len(part) for part in (document.get("nodes"), document.get("edges")) if isinstance(part, list))
    if size < _LARGE:
        return judge()
    return await anyio.to_thread.run_sync(judge)


def _stored(realm: Realm, document: dict[str, Json]) -> dict[str, Workflow]:
    """The stored workflows, and this one among them: so that calling itself is seen as a circle."""
    stored = dict(realm.workflows)
    try:
        own = Workflow.from_dict(document)
    except DocumentError:
        return stored
    return {**stored, own.id: own}


async def _triggers(call: Call, workflow: Workflow) -> Triggers:
    now = await call.services.storage.now()
    return triggers_of(workflow, now=now)


async def _save(
    call: Call, workflow: Workflow, document: dict[str, Json], *, expected: int | None
) -> tuple[WorkflowRow, Version]:
    activate: bool = call.query["activate"]
    types = call.services.engine.all_types.node_types
    triggers = await _triggers(call, workflow)  # of a draft too: it is refused now, not when it shall live
    try:
        version = await call.store.workflows.save(
            workflow.id,
            with_type_versions(document, types),
            name=workflow.name or "",
            expected=expected,
            triggers=triggers if activate else None,
            created_by=call.principal.name,
        )
    except Conflict:
        if expected == 0:
            raise Exists(f"there is a workflow {workflow.id!r} already: PUT saves a further version") from None
        raise _changed(None) from None
    call.services.realms.changed(call.tenant)
    row = await call.store.workflows.get(workflow.id)
    if row is None:
        raise NotFound(f"there is no workflow {workflow.id!r}")
    # Somebody may have saved another one since: the ETag is to be that of what is shown, and not fit theirs.
    return attrs.evolve(row, latest=version.number), version


def _expected(call: Call, row: WorkflowRow) -> int | None:
    """The version that ``If-Match`` wants to be the latest; ``None``: it does not stand there, or asks for any.

    Raises:
        Problem: The workflow is not as the caller knows it.
    """
    given = call.header("if-match")
    if given is None or given.strip() == "*":
        return None
    if not _names(given, _tag(row)):
        raise _changed(row)
    return row.latest


def _names(given: str | None, tag: str) -> bool:
    """Whether a list of ETags names this one."""
    named = [] if given is None else [one.strip().removeprefix("W/") for one in given.split(",")]
    return tag in named or "*" in named


def _changed(row: WorkflowRow | None) -> Problem:
    now = "" if row is None else f": its latest version is {row.latest}, {row.active or 'none'} is active"
    headers = {} if row is None else {"ETag": _tag(row)}
    return Problem(412, "changed", f"the workflow was changed meanwhile{now}; read it again", headers=headers)


def _tag(row: WorkflowRow) -> str:
    """What is shown changes with each version, and with the one that is active."""
    return f'"v{row.latest}"' if row.active == row.latest else f'"v{row.latest}-{row.active or 0}"'


def _summary(row: WorkflowRow) -> dict[str, Json]:
    return {
        "id": row.id,
        "name": row.name,
        "active": row.active,
        "latest": row.latest,
        "created_at": format_time(row.created_at),
        "updated_at": format_time(row.updated_at),
    }


def _body(row: WorkflowRow, version: Version) -> dict[str, Json]:
    return {**_summary(row), "version": version.number, "document": dict(version.document)}
