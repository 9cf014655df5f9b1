"""The routes of schedules: those of trigger nodes, which change with their workflow, and those made by hand."""

from __future__ import annotations

from secrets import token_hex

import attrs

from orchestrator_core import Fault
from orchestrator_core.codec import format_time
from orchestrator_core.errors import Conflict, DocumentError
from orchestrator_core.types import Json
from orchestrator_server.api.problems import Problem
from orchestrator_server.api.shapes import ScheduleChange, ScheduleRequest, ScheduleSpec
from orchestrator_server.api.table import Call, Reply
from orchestrator_server.errors import Exists, Invalid, NotFound
from orchestrator_server.records import Schedule, check_id
from orchestrator_server.slots import next_slot

__all__ = [
    "change_schedule",
    "create_schedule",
    "delete_schedule",
    "get_schedule",
    "list_schedules",
    "list_slots",
    "update_schedule",
]

_ROUNDS = 5


async def list_schedules(call: Call) -> Reply:
    """The schedules of the active versions, and those made by hand."""
    return Reply({"schedules": [_shown(schedule) for schedule in await call.store.schedules.list()]})


async def create_schedule(call: Call) -> Reply:
    """Make a schedule by hand. It starts the active version of its workflow, whichever that is then."""
    request: ScheduleRequest = call.body
    name = f"schedule_{token_hex(8)}" if request.id is None else check_id(request.id, "schedule")
    schedule = await _judge(call, name, request)
    try:
        await call.store.schedules.replace(schedule, before=None)
    except Conflict:
        raise Exists(f"there is a schedule {name!r} already: PUT changes one that was made by hand") from None
    return Reply(_shown(schedule), 201, {"Location": call.url(f"/schedules/{name}")})


async def get_schedule(call: Call) -> Reply:
    """One schedule."""
    return Reply(_shown(await _find(call)))


async def update_schedule(call: Call) -> Reply:
    """Change a schedule that was made by hand. With the same spec it goes on where it was."""
    request: ScheduleRequest = call.body
    name = call.path["schedule_id"]
    for _ in range(_ROUNDS):
        known = _own(await _find(call))
        if request.id not in (None, name):
            raise DocumentError([Fault(f"is not the id in the path: write {name!r}, or leave it out", "$.id")])
        schedule = await _judge(call, name, request, known)
        if await _replaced(call, schedule, known):
            return Reply(_shown(schedule))
    raise _busy(name)


async def change_schedule(call: Call) -> Reply:
    """Switch a schedule off, or on again from its next slot on."""
    request: ScheduleChange = call.body
    for _ in range(_ROUNDS):
        known = await _find(call)
        if known.enabled == request.enabled:
            return Reply(_shown(known))
        schedule = attrs.evolve(known, enabled=request.enabled)
        if request.enabled:
            # Slots that passed while it was off are not made up for.
            schedule = attrs.evolve(schedule, next_at=next_slot(schedule.spec, await call.services.storage.now()))
        if await _replaced(call, schedule, known):
            return Reply(_shown(schedule))
    raise _busy(call.path["schedule_id"])


async def delete_schedule(call: Call) -> Reply:
    """Delete a schedule that was made by hand. What it has started goes on."""
    schedule = _own(await _find(call))
    if not await call.store.schedules.delete(schedule.id):
        raise _missing(schedule.id)
    return Reply(None, 204)


async def list_slots(call: Call) -> Reply:
    """The latest slots that were dealt with, newest first, each with the execution that it started."""
    schedule = await _find(call)
    slots = await call.store.schedules.slots(schedule.id, limit=call.query["limit"])
    return Reply({"slots": [{"at": format_time(slot.at), "execution_id": slot.execution_id} for slot in slots]})


# --- judging ----------------------------------------------------------------------------------------------------------


async def _judge(call: Call, name: str, request: ScheduleRequest, known: Schedule | None = None) -> Schedule:
    """The schedule that is asked for, with its next slot.

    Raises:
        DocumentError: Its workflow is not there or cannot be started like that, or its spec means no time to come.
    """
    spec = _spec(request.spec)
    await _check_start(call, request.workflow, request.spec.start)
    now = await call.services.storage.now()
    try:
        next_at = next_slot(spec, now)
    except Invalid as error:
        where, _, what = str(error).partition(": ")
        raise DocumentError([Fault(what, f"$.spec{where.removeprefix('schedule')}")]) from None
    enabled = request.enabled if request.enabled is not None else known is None or known.enabled
    same = known is not None and known.spec == spec and known.workflow == request.workflow
    if same and known is not None:
        if known.enabled or not enabled:
            next_at = known.next_at
        return attrs.evolve(known, enabled=enabled, next_at=next_at)
    if next_at is None:
        raise DocumentError([Fault("means no time that is still to come", "$.spec")])
    state = known.state if known is not None and known.workflow == request.workflow else {}
    return Schedule(name, request.workflow, "", spec, next_at, enabled, state)


def _spec(given: ScheduleSpec) -> dict[str, Json]:
    """What is kept of a spec: what was said, as :mod:`orchestrator_server.slots` and the scheduler read it."""
    fields = attrs.fields(ScheduleSpec)
    said = {field.name: getattr(given, field.name) for field in fields}
    return {field.name: said[field.name] for field in fields if said[field.name] != field.default}


async def _check_start(call: Call, workflow_id: str, start: str | None) -> None:
    """See that the workflow can be started. One without an active version may get one until the slot comes."""
    check_id(workflow_id, "workflow")
    row = await call.store.workflows.get(workflow_id)
    if row is None:
        raise DocumentError([Fault(f"there is no workflow {workflow_id!r}", "$.workflow")])
    if row.active is None:
        return
    workflow = await call.services.realms.workflow(call.tenant, workflow_id, row.active)
    realm = await call.services.realms.for_execution(call.tenant, workflow)
    try:
        realm.plan(workflow, start)
    except DocumentError as error:
        here = {"$.start": "$.spec.start"}
        raise DocumentError([Fault(f.message, here.get(f.place, "$.workflow")) for f in error.faults]) from None


def _own(schedule: Schedule) -> Schedule:
    """See that a schedule was made by hand."""
    if schedule.node:
        raise Problem(
            409,
            "of_a_trigger",
            f"the schedule {schedule.id!r} is that of the trigger {schedule.node!r}: save a version of the workflow "
            f"{schedule.workflow!r} that says something else, or switch the schedule off with PATCH",
        )
    return schedule


async def _replaced(call: Call, schedule: Schedule, known: Schedule) -> bool:
    """Whether it could be changed: it is not what was read any more where a slot was dealt with meanwhile."""
    try:
        await call.store.schedules.replace(schedule, before=known)
    except Conflict:
        return False
    return True


async def _find(call: Call) -> Schedule:
    found = await call.store.schedules.get(call.path["schedule_id"])
    if found is None:
        raise _missing(call.path["schedule_id"])
    return found


def _missing(name: str) -> NotFound:
    return NotFound(f"there is no schedule {name!r}")


def _busy(name: str) -> Conflict:
    return Conflict(f"the schedule {name!r} is being changed by others: try again")


def _shown(schedule: Schedule) -> dict[str, Json]:
    return {
        "id": schedule.id,
        "workflow": schedule.workflow,
        "node": schedule.node or None,
        "spec": dict(schedule.spec),
        "enabled": schedule.enabled,
        "next_at": format_time(schedule.next_at) if schedule.enabled else None,
    }
