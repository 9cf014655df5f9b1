"""The scheduler: starts an execution for every slot of every schedule.

It keeps nothing of its own: a schedule's row says which slot comes next, and a slot is dealt with in the transaction that creates its
execution and sets the next slot. So any number of schedulers may run at one time, and stop at any point. What is due is
judged by the database's clock.

Beside that it sweeps: for failures for which an error workflow has not been started, because a worker died or an execution
went into quarantine; and for executions and blobs whose tenant's retention is over. And it measures the tenants that have a
limit on what they keep.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import anyio
import attrs

from orchestrator_core.errors import DocumentError
from orchestrator_core.types import Json
from orchestrator_server.error_workflows import ErrorWorkflows
from orchestrator_server.errors import Conflict, Invalid, NotFound, StorageFull, TooMany
from orchestrator_server.metrics import SlotOutcome
from orchestrator_server.realms import Realms
from orchestrator_server.records import DueSchedule, ExecutionRow, Message, NewExecution, Schedule
from orchestrator_server.slots import Rhythm, next_slot, next_slots, rhythm_of
from orchestrator_server.storage import Storage, TenantStore, every_tenant

__all__ = ["Scheduler", "next_slot", "next_slots"]

_LOG = logging.getLogger(__name__)
_MANY: Final = 100  # schedules that are read at once
_SIDE_BY_SIDE: Final = 8  # tenants' schedules that are dealt with at one time
# Others want to write while executions are forgotten: seconds that a stroke may take, after which there is a rest as long.
_STROKE: Final = 0.02
_FEWEST: Final = 10  # executions that a stroke forgets
_MOST: Final = 500
_DAY: Final = 86_400.0
_BLOCKED: Final = 1.0  # seconds between two looks at a buffered slot


class Scheduler:
    """Deals with the slots of all tenants' schedules.

    Args:
        storage: Where they are.
        realms: The realms of tenants: their workflows and variables. Its engine need not be open.
        tick: Seconds between two rounds: so much later than its slot an execution may start.
        sweep: Seconds between two sweeps; for failures each looks back twice as far, the first a day. ``None``: no sweeps.
        measure: Seconds between two times that tenants are measured: so long one may go on beyond its limit. ``None``: never.
    """

    def __init__(
        self,
        storage: Storage,
        realms: Realms,
        *,
        tick: float = 1.0,
        sweep: float | None = 300.0,
        measure: float | None = 30.0,
    ) -> None:
        self._storage = storage
        self._realms = realms
        self._tick = tick
        self._sweep = sweep
        self._measure = measure
        self._errors = ErrorWorkflows(storage, realms)
        self._blocked: dict[tuple[str, str], float] = {}  # buffered slots: when to look again, by the database's clock
        self._back = _DAY  # seconds that the next sweep looks back
        self._stopping = anyio.Event()

    async def run(self) -> None:
        """Work until :meth:`stop`. What goes wrong in a round is logged, and tried again in the next."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._every, self._tick, self.step)
            if self._measure is not None:
                group.start_soon(self._every, self._measure, self.measure)
            if self._sweep is not None:
                group.start_soon(self._every, self._sweep, partial(self._sweep_up, self._sweep))

    async def _every(self, seconds: float, work: Callable[[], Awaitable[object]]) -> None:
        """Do it again and again, by a clock that nobody sets."""
        while not self._stopping.is_set():
            try:
                await work()
            except Exception:  # noqa: BLE001 - it is logged, and the next round tries again
                _LOG.exception("scheduler: a round failed and is done again")
            with anyio.move_on_after(seconds):
                await self._stopping.wait()

    async def _sweep_up(self, seconds: float) -> None:
        # After a start nobody knows for how long no scheduler ran.
        await self._errors.sweep(self._back)
        self._back = 2 * seconds
        await self.forget()

    def stop(self) -> None:
        """Let :meth:`run` return after the round that it is in."""
        self._stopping.set()

    async def step(self) -> int:
        """One round: deal with every slot that has come. Returns how many slots were dealt with here."""
        dealt = 0
        while True:
            now = await self._storage.now()
            self._blocked = {key: at for key, at in self._blocked.items() if at > now}
            # Buffered ones are due all the time: they must not keep others out of the list.
            due = await self._storage.queue.due_schedules(_MANY + len(self._blocked))
            todo = [item for item in due if (item.tenant, item.schedule_id) not in self._blocked]
            if not todo:
                return dealt
            done: list[bool] = []
            limiter = anyio.CapacityLimiter(_SIDE_BY_SIDE)
            async with anyio.create_task_group() as group:
                for item in todo:
                    group.start_soon(self._deal, item, now, limiter, done)
            dealt += sum(done)
            if not any(done):
                return dealt

    async def measure(self) -> None:
        """Measure the tenants that have a limit on what they keep."""
        async for tenant in every_tenant(self._storage):
            if tenant.limits.storage is not None:
                with contextlib.suppress(NotFound):  # deleted meanwhile
                    await self._storage.tenants.measure(tenant.id)

    async def forget(self) -> int:
        """Forget the executions and blobs of all tenants whose retention is over. Returns how many."""
        forgotten = 0
        async for tenant in every_tenant(self._storage):
            with contextlib.suppress(NotFound):  # deleted meanwhile
                store = await self._realms.store(tenant.id)
                kept = tenant.retention
                if kept.executions is not None:
                    before = await self._storage.now() - kept.executions
                    forgotten += await _in_strokes(lambda many: store.executions.prune(before, limit=many))  # noqa: B023 - called here
                if kept.blobs is not None:
                    before = await self._storage.now() - kept.blobs
                    forgotten += await _in_strokes(lambda many: store.blobs.prune(before, limit=many))  # noqa: B023 - as above
        return forgotten

    # --- one slot -------------------------------------------------------------------------------------------------------

    async def _deal(self, item: DueSchedule, now: float, limiter: anyio.CapacityLimiter, done: list[bool]) -> None:
        """Deal with the next slot of a schedule; note whether something was done."""
        try:
            async with limiter:
                store = await self._realms.store(item.tenant)
                schedule = await store.schedules.get(item.schedule_id)
                if schedule is None or not schedule.enabled or schedule.next_at != item.next_at:
                    return  # somebody was quicker, or it was changed
                done.append(await self._slot(store, schedule, item.next_at, now))
        except (NotFound, Conflict):
            return  # the tenant or the schedule was deleted meanwhile, or it was changed and is read again
        except Exception:  # noqa: BLE001 - one bad schedule does not stop the others
            extra = {"tenant": item.tenant}
            _LOG.exception("schedule %s: its slot could not be dealt with", item.schedule_id, extra=extra)
            self._blocked[item.tenant, item.schedule_id] = now + _BLOCKED

    async def _slot(self, store: TenantStore, schedule: Schedule, slot: float, now: float) -> bool:
        try:
            rhythm = rhythm_of(schedule.spec)
        except Invalid as fault:
            _LOG.error("schedule %s: %s; it is given up", schedule.id, fault, extra={"tenant": store.tenant})
            return await self._note(store, schedule, slot, None, None, outcome="failed")
        last = await self._last(store, schedule)
        busy = last is not None and last.finished_at is None
        ended_at = last.finished_at if last is not None else None
        following = next_slot(rhythm, slot)
        if busy and rhythm.overlap == "buffer_one":
            # It stays due until the one before has ended: then it starts, and those that came meanwhile do not.
            self._blocked[store.tenant, schedule.id] = now + _BLOCKED
            return False
        if rhythm.overlap == "buffer_one" and ended_at is not None and ended_at > slot:
            following = next_slot(rhythm, max(now, slot))
        elif slot < now - rhythm.catch_up:
            return await self._leave_out(store, schedule, rhythm, slot, now)
        elif busy and rhythm.overlap == "skip":
            return await self._note(store, schedule, slot, None, following, outcome="skipped")
        new = await self._new(store, schedule, slot)
        if new is None:
            return await self._note(store, schedule, slot, None, following, outcome="failed")
        if busy and last is not None and rhythm.overlap == "cancel_other":
            # Whether or not there is room for the new one yet: this makes some.
            await store.inbox.post(last.id, Message(_key("cancel", schedule.id, slot), "cancel"))
        try:
            async with await self._realms.place(store.tenant):
                return await self._note(store, schedule, slot, new, following, outcome="fired")
        except (StorageFull, TooMany) as fault:
            _LOG.warning("schedule %s: %s", schedule.id, fault, extra={"tenant": store.tenant})
            if slot < now - rhythm.catch_up:
                return await self._leave_out(store, schedule, rhythm, slot, now)
            # It stays due until there is room, or its catch-up window is over.
            self._blocked[store.tenant, schedule.id] = now + _BLOCKED
            return False

    async def _last(self, store: TenantStore, schedule: Schedule) -> ExecutionRow | None:
        """The execution that the schedule has started last, unless it was forgotten."""
        name = schedule.state.get("last")
        return await store.executions.get(name) if isinstance(name, str) else None

    async def _leave_out(self, store: TenantStore, schedule: Schedule, rhythm: Rhythm, slot: float, now: float) -> bool:
        """No scheduler ran for long: go on with what the catch-up window has of it."""
        following = next_slot(rhythm, max(slot, now - rhythm.catch_up - 1e-6))
        _LOG.warning(
            "schedule %s: its slots from %s on are too long ago and left out",
            schedule.id,
            _iso(slot),
            extra={"tenant": store.tenant},
        )
        return await self._note(store, schedule, slot, None, following, outcome="missed")

    async def _note(
        self,
        store: TenantStore,
        schedule: Schedule,
        slot: float,
        new: NewExecution | None,
        following: float | None,
        *,
        outcome: SlotOutcome,
    ) -> bool:
        """Note a slot, with its execution or without, and the slot that follows."""
        state = None if new is None else {**schedule.state, "last": new.event.execution_id}
        created = await store.schedules.fire(schedule.id, slot, new, next_at=following, state=state, before=schedule)
        if created is not None:
            self._realms.metrics.accepted("schedule")
        if created is not None or new is None:
            self._realms.metrics.slot(outcome, 0.0 if created is None else created.execution.created_at - slot)
        if created is None:
            now = await store.schedules.get(schedule.id)
            if now is not None and now.next_at == slot and slot != following:
                # It was set back to a slot that had been dealt with: that is over, whoever set it.
                await store.schedules.replace(attrs.evolve(now, next_at=following), before=now)
        return True

    async def _new(self, store: TenantStore, schedule: Schedule, slot: float) -> NewExecution | None:
        """The execution of a slot; ``None`` where the workflow cannot run: then the slot is left out."""
        extra = {"tenant": store.tenant}
        try:
            workflow = await self._realms.workflow(store.tenant, schedule.workflow)
            realm = await self._realms.for_execution(store.tenant, workflow)
            payload: Json = {"slot": _iso(slot), "schedule": schedule.id}
            if not schedule.node and "payload" in schedule.spec:
                payload = schedule.spec["payload"]
            start = schedule.node or _start_of(schedule)
            event = realm.accept(workflow, payload, start=start)
        except (NotFound, DocumentError) as fault:
            _LOG.warning("schedule %s: %s; the slot %s is left out", schedule.id, fault, _iso(slot), extra=extra)
            return None
        return NewExecution(event)


async def _in_strokes(prune: Callable[[int], Awaitable[int]]) -> int:
    """Remove something so many at a time until nothing more is over. Returns how many."""
    gone, many = 0, _FEWEST
    while True:
        began = anyio.current_time()
        some = await prune(many)
        took = anyio.current_time() - began
        gone += some
        if some < many:
            return gone
        # How many go into a stroke depends on what they have, and on the disk.
        many = min(max(int(many * min(2.0, _STROKE / max(took, 1e-4))), _FEWEST), _MOST)
        await anyio.sleep(max(took, _STROKE))


def _start_of(schedule: Schedule) -> str | None:
    """The trigger that a schedule made by hand starts at, where it says so."""
    start = schedule.spec.get("start")
    return start if isinstance(start, str) else None


def _key(*parts: object) -> str:
    """An id that is the same for whoever deals with the same slot."""
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:32]


def _iso(slot: float) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=slot)).isoformat().replace("+00:00", "Z")
