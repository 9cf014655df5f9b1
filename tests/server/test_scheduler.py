"""The scheduler: one execution for each slot, however many schedulers there are and however often they stop."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest
from engine_room import KEYS, LONG, NODES, document, ended, node, room, save, storages, tenant, until

from orchestrator_core import Engine, SystemClock
from orchestrator_core.events import ExecutionEnded, ExecutionStarted
from orchestrator_core.types import ExecutionStatus
from orchestrator_server.error_workflows import error_execution_id
from orchestrator_server.memory import MemoryStorage
from orchestrator_server.realms import Realms
from orchestrator_server.records import (
    POISON_CLAIMS,
    SUSPECT_CLAIMS,
    ExecutionQuery,
    Limits,
    NewExecution,
    Retention,
    Schedule,
    Slot,
    Tenant,
    new_execution_id,
)
from orchestrator_server.scheduler import Scheduler
from orchestrator_server.sealing import Sealer
from orchestrator_server.slots import next_slot, next_slots
from orchestrator_server.storage import Storage, TenantStore

pytestmark = pytest.mark.anyio

BEGIN = datetime(2027, 3, 27, 12, tzinfo=UTC).timestamp()
TICKS = document(node("tick", "schedule", every=60), node("s", "set", values={"slot": "{{ input.slot }}"}))


class Time:
    """A clock that the test turns, for the storage and for whoever sleeps by it."""

    def __init__(self) -> None:
        self.now = BEGIN

    def time(self) -> float:
        return self.now

    async def sleep_until(self, due: float) -> None:
        while self.now < due:
            await anyio.sleep(0.001)


class Stage:
    """A storage in memory whose time is the test's."""

    def __init__(self) -> None:
        self.time = Time()
        self.storage = MemoryStorage(now=self.time.time)
        self.engine = Engine(node_types=NODES, clock=self.time)

    def scheduler(self) -> Scheduler:
        return Scheduler(self.storage, Realms(self.engine, self.storage, Sealer(KEYS, "k1")))

    async def put(self, store: TenantStore, **spec: Any) -> None:
        first = next_slot(spec, self.time.now)
        await store.schedules.put(Schedule("s", "w", "tick", spec, next_at=first))


@pytest.fixture(params=["memory", "sqlite"])
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    async with storages(request.param, tmp_path) as opened:
        yield opened


async def slots(store: TenantStore) -> list[Slot]:
    return sorted(await store.schedules.slots("s", limit=100_000), key=lambda slot: slot.at)


async def test_a_slot_starts_one_execution_with_its_payload() -> None:
    stage = Stage()
    store = await tenant(stage.storage)
    await save(store, TICKS)
    await stage.put(store, every=60)
    scheduler = stage.scheduler()
    assert await scheduler.step() == 0
    stage.time.now += 60
    assert await scheduler.step() == 1
    (slot,) = await slots(store)
    assert slot.at == BEGIN + 60
    assert slot.execution_id is not None
    (start,) = await store.journal.read("ann", slot.execution_id)
    assert isinstance(start, ExecutionStarted)
    assert start.payload == {"slot": "2027-03-27T12:01:00Z", "schedule": "s"}
    assert (start.start, start.version) == ("tick", 1)


@pytest.mark.parametrize(
    ("cron", "zone"),
    [
        ("*/15 * * * *", "Europe/Berlin"),
        ("30 2 * * *", "Europe/Berlin"),
        ("0 * * * *", "Australia/Lord_Howe"),
        ("15 1,2 * * *", "America/New_York"),
        ("0 9 * * MON-FRI", "Pacific/Apia"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
async def test_two_schedulers_that_are_stopped_at_random_miss_nothing_and_double_nothing(
    cron: str, zone: str, seed: int
) -> None:
    chance = random.Random(f"{cron}{zone}{seed}")
    stage = Stage()
    store = await tenant(stage.storage)
    await save(store, TICKS)
    spec = {"cron": cron, "timezone": zone, "overlap": "allow", "catch_up": "2d"}
    await stage.put(store, **spec)
    both = [stage.scheduler(), stage.scheduler()]
    end = BEGIN + 10 * 86400
    while stage.time.now < end:
        stage.time.now += chance.choice([60, 600, 3600, 40_000])
        with anyio.move_on_after(chance.choice([0.0, 0.0005, LONG])):  # stopped in the midst of it
            async with anyio.create_task_group() as group:
                for scheduler in both:
                    group.start_soon(scheduler.step)
        if chance.random() < 0.3:
            both[chance.randrange(2)] = stage.scheduler()
    await both[0].step()
    dealt = await slots(store)
    assert [slot.at for slot in dealt] == list(next_slots(spec, BEGIN, stage.time.now))
    started = [slot.execution_id for slot in dealt]
    assert None not in started
    assert len(set(started)) == len(started) == len(stage.storage._world.tenants["ann"].executions)


async def test_what_was_missed_for_longer_than_the_window_is_left_out() -> None:
    stage = Stage()
    store = await tenant(stage.storage)
    await save(store, TICKS)
    await stage.put(store, every=60, overlap="allow", catch_up=300)
    stage.time.now += 86400.5
    await stage.scheduler().step()
    dealt = await slots(store)
    assert [slot.at for slot in dealt if slot.execution_id] == [stage.time.now - 0.5 - 60 * n for n in (4, 3, 2, 1, 0)]
    assert len(dealt) == 6  # the first that was missed is noted, the day between is not
    assert (await store.schedules.get("s")).next_at == stage.time.now - 0.5 + 60  # type: ignore[union-attr]


async def test_skip_leaves_slots_out_while_one_runs() -> None:
    stage = Stage()
    store = await tenant(stage.storage)
    await save(store, TICKS)
    await stage.put(store, every=60, overlap="skip")
    scheduler = stage.scheduler()
    for _ in range(3):
        stage.time.now += 60
        await scheduler.step()
    first, *others = await slots(store)
    assert first.execution_id is not None
    assert [slot.execution_id for slot in others] == [None, None]
    await store.executions.delete(first.execution_id)
    stage.time.now += 60
    await scheduler.step()
    assert (await slots(store))[-1].execution_id is not None


async def test_buffer_one_starts_one_afterwards() -> None:
    stage = Stage()
    store = await tenant(stage.storage)
    await save(store, TICKS)
    await stage.put(store, every=60, overlap="buffer_one", catch_up=60)
    async with stage.engine:
        scheduler = stage.scheduler()
        stage.time.now += 60
        await scheduler.step()
        (first,) = await slots(store)
        for _ in range(5):
            stage.time.now += 60
            await scheduler.step()
        assert await slots(store) == [first]
        assert first.execution_id is not None
        await end(stage, store, first.execution_id)
        stage.time.now += 10
        await scheduler.step()
        await stage.scheduler().step()
        _, second = await slots(store)
        assert second.at == BEGIN + 120  # the first that had to wait; the other four are left out
        assert second.execution_id is not None
        await end(stage, store, second.execution_id)
        stage.time.now += 60
        await scheduler.step()
        assert [slot.at - BEGIN for slot in await slots(store)] == [60, 120, 420]


async def end(stage: Stage, store: TenantStore, execution_id: str) -> None:
    """Let an execution end now."""
    ending = ExecutionEnded(stage.time.now, ExecutionStatus.SUCCEEDED)
    await store.journal.append("ann", execution_id, 1, 0, [ending])


async def test_cancel_other_asks_the_one_that_runs_to_stop() -> None:
    stage = Stage()
    store = await tenant(stage.storage)
    await save(store, TICKS)
    await stage.put(store, every=60, overlap="cancel_other")
    scheduler = stage.scheduler()
    for _ in range(2):
        stage.time.now += 60
        await scheduler.step()
    first, second = await slots(store)
    assert first.execution_id is not None
    assert second.execution_id is not None
    assert [message.kind for message in await store.inbox.messages(first.execution_id)] == ["cancel"]
    assert not await store.inbox.messages(second.execution_id)


async def test_who_comes_late_to_a_slot_does_not_cancel_its_execution() -> None:
    stage = Stage()
    store = await tenant(stage.storage)
    await save(store, TICKS)
    await stage.put(store, every=60, overlap="cancel_other")
    stage.time.now += 60
    (due,) = await stage.storage.queue.due_schedules()
    assert await stage.scheduler().step() == 1
    late: list[bool] = []
    await stage.scheduler()._deal(due, stage.time.now, anyio.CapacityLimiter(1), late)
    (slot,) = await slots(store)
    assert not late
    assert slot.execution_id is not None
    assert not await store.inbox.messages(slot.execution_id)


async def test_a_schedule_of_a_workflow_that_cannot_run_leaves_its_slots_out_and_goes_on() -> None:
    stage = Stage()
    store = await tenant(stage.storage)
    await save(store, document(node("tick", "schedule", every=60), node("x", "nothing.known")))
    # Made by hand: it does not go when its workflow is saved anew.
    spec = {"every": 60, "payload": {"by": "hand"}}
    await store.schedules.put(Schedule("s", "w", "", spec, next_at=BEGIN + 60))
    stage.time.now += 60
    await stage.scheduler().step()
    await save(store, TICKS)
    stage.time.now += 60
    await stage.scheduler().step()
    left_out, started = await slots(store)
    assert left_out.execution_id is None
    assert started.execution_id is not None
    (start,) = await store.journal.read("ann", started.execution_id)
    assert isinstance(start, ExecutionStarted)
    assert start.payload == {"by": "hand"}


async def test_a_bad_schedule_does_not_stop_others_and_disabled_ones_rest() -> None:
    stage = Stage()
    store = await tenant(stage.storage)
    await save(store, TICKS)
    await stage.put(store, every=60)
    await store.schedules.put(Schedule("bad", "w", "tick", {"cron": "what"}, next_at=BEGIN))
    await store.schedules.put(Schedule("off", "w", "tick", {"every": 60}, next_at=BEGIN, enabled=False))
    stage.time.now += 60
    await stage.scheduler().step()
    assert len(await slots(store)) == 1
    assert (await store.schedules.get("bad")).next_at is None  # type: ignore[union-attr]
    assert not await store.schedules.slots("off")


async def test_a_schedule_that_is_set_back_does_not_repeat_a_slot() -> None:
    stage = Stage()
    store = await tenant(stage.storage)
    await save(store, TICKS)
    await stage.put(store, every=60, overlap="allow")
    stage.time.now += 60
    await stage.scheduler().step()
    await store.schedules.put(Schedule("s", "w", "tick", {"every": 60, "overlap": "allow"}, next_at=BEGIN + 60))
    stage.time.now += 60
    with anyio.fail_after(LONG):
        await stage.scheduler().step()
    assert [slot.at - BEGIN for slot in await slots(store)] == [60, 120]


async def test_schedulers_at_once_over_a_real_storage_start_each_slot_once(storage: Storage) -> None:
    store = await tenant(storage)
    await save(store, TICKS)
    now = await storage.now()
    await store.schedules.put(
        Schedule("s", "w", "tick", {"every": 1, "overlap": "allow", "catch_up": 60}, next_at=float(int(now) - 20))
    )
    async with room(storage) as here, anyio.create_task_group() as group:
        every = [Scheduler(storage, here.realms, tick=0.05) for _ in range(3)]
        for scheduler in every:
            group.start_soon(scheduler.run)
        await until(lambda: _many(store, 21))
        for scheduler in every:
            scheduler.stop()
    dealt = await slots(store)
    assert [slot.at for slot in dealt] == [int(now) - 20 + n for n in range(len(dealt))]
    page = await store.executions.list(ExecutionQuery(limit=500))
    assert sorted(row.id for row in page.executions) == sorted(slot.execution_id or "" for slot in dealt)


async def _many(store: TenantStore, count: int) -> bool:
    return len(await slots(store)) >= count


# --- error workflows ---------------------------------------------------------------------------------------------------

FAILS = document(node("go", "manual"), node("f", "fail", message="no luck"), name="fails")
ALARM = document(node("go", "manual"), node("s", "set", values={"got": "{{ payload }}"}), name="alarm")


async def alarmed(storage: Storage) -> TenantStore:
    """A tenant whose workflow ``fails`` does, and whose error workflow is ``alarm``."""
    store = await tenant(storage, error_workflow="alarm")
    await save(store, FAILS)
    await save(store, ALARM)
    return store


async def test_a_failure_starts_the_error_workflow_once(storage: Storage) -> None:
    store = await alarmed(storage)
    async with room(storage) as here:
        handle = await here.worker.execute("ann", "fails")
        await handle.wait(LONG)
        alarm = error_execution_id(handle.id)
        await until(lambda: store.executions.get(alarm))
        assert await ended(store, alarm) == "succeeded"
        outcome = await store.executions.outcome(alarm)
        assert outcome is not None
        got = outcome.output["got"]
        assert (got["execution"], got["workflow"], got["error"]["node"]) == (handle.id, "fails", "f")
        scheduler = Scheduler(storage, here.realms)
        assert await scheduler._errors.sweep(600) == 1
        page = await store.executions.list(ExecutionQuery())
        assert sorted(row.id for row in page.executions) == sorted([handle.id, alarm])


async def test_an_error_workflow_that_fails_starts_nothing(storage: Storage) -> None:
    store = await tenant(storage, error_workflow="fails", error_workflows={"quiet": None, "fails": "other"})
    await save(store, FAILS)
    await save(store, {**FAILS, "id": "other"})
    await save(store, {**FAILS, "id": "quiet"})
    async with room(storage) as here:
        for name in ("fails", "quiet", "other"):
            await (await here.worker.execute("ann", name)).wait(LONG)

        async def all_failed() -> bool:
            return len((await store.executions.list(ExecutionQuery(statuses=("failed",)))).executions) == 5

        await until(all_failed)
        await Scheduler(storage, here.realms)._errors.sweep(600)
        await anyio.sleep(0.2)
        assert await all_failed()
        page = await store.executions.list(ExecutionQuery())
        assert sorted(row.workflow for row in page.executions) == ["fails", "fails", "other", "other", "quiet"]


async def _nothing(*_: Any) -> None:
    pass


@pytest.mark.parametrize("ago", [0, 80_000])
async def test_the_sweep_finds_what_a_dead_worker_left(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, ago: int
) -> None:
    """The first one looks back a day: nobody knows for how long no scheduler ran."""
    store = await alarmed(storage)
    async with room(storage) as here:
        monkeypatch.setattr(here.worker, "_tell_of_failure", _nothing)
        handle = await here.worker.execute("ann", "fails")
        await handle.wait(LONG)
        await until(lambda: here.worker.holds == 0)
        assert await store.executions.get(error_execution_id(handle.id)) is None
        real = storage.now

        async def later() -> float:
            return await real() + ago

        monkeypatch.setattr(storage, "now", later)
        scheduler = Scheduler(storage, here.realms, tick=0.05)
        async with anyio.create_task_group() as group:
            group.start_soon(scheduler.run)
            assert await ended(store, error_execution_id(handle.id)) == "succeeded"
            scheduler.stop()


async def test_what_a_revived_execution_fails_with_is_told_too(storage: Storage) -> None:
    store = await alarmed(storage)
    name = new_execution_id()
    event = ExecutionStarted(time.time(), name, start="go", workflow="fails", version=1)
    await store.executions.create(NewExecution(event))

    async def told() -> list[str]:
        rows = (await store.executions.list(ExecutionQuery(workflow="alarm", sort="created_at"))).executions
        outcomes = [await store.executions.outcome(row.id) for row in rows if await ended(store, row.id) == "succeeded"]
        return sorted(outcome.output["got"]["error"]["code"] for outcome in outcomes if outcome is not None)

    async with room(storage, work=False) as here:
        scheduler = Scheduler(storage, here.realms)
        for number in range(POISON_CLAIMS + 1):
            await storage.queue.claim("w", 1, 0.0, suspects=SUSPECT_CLAIMS <= number < POISON_CLAIMS)
        for _ in range(2):
            await scheduler._errors.sweep(600)
    async with room(storage) as here:
        assert await told() == ["poisoned"]
        assert await storage.queue.revive("ann", name)
        assert await ended(store, name) == "failed"
        scheduler = Scheduler(storage, here.realms)
        await scheduler._errors.sweep(600)
        assert await told() == ["failed", "poisoned"]


async def test_a_clock_that_is_set_back_stops_no_schedule(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is due is judged by the database's clock, and rounds go by none that can be set."""
    store = await tenant(storage)
    await save(store, TICKS)
    spec = {"every": 1, "overlap": "allow"}
    await store.schedules.put(Schedule("s", "w", "tick", spec, next_at=await storage.now() + 0.1))
    async with room(storage, work=False) as here, anyio.create_task_group() as group:
        scheduler = Scheduler(storage, here.realms, tick=0.05)
        group.start_soon(scheduler.run)
        await until(lambda: _many(store, 2))
        monkeypatch.setattr(SystemClock, "time", lambda _: time.time() - 3600.0)
        await until(lambda: _many(store, 5))
        scheduler.stop()


# --- retention -----------------------------------------------------------------------------------------------------------


async def test_what_ended_long_ago_is_forgotten_where_the_tenant_wants_it(storage: Storage) -> None:
    ann, bob = await tenant(storage, "ann"), await tenant(storage, "bob")
    known = await storage.tenants.get("ann")
    assert known is not None
    await storage.tenants.update("ann", retention=Retention(0.5))
    for store in (ann, bob):
        await save(store, ALARM)
        await save(store, document(node("go", "manual"), node("ask", "wait", signal="yes"), name="waits"))
    async with room(storage) as here:
        old = [await here.worker.execute(name, "alarm") for name in ("ann", "bob")]
        waits = await here.worker.execute("ann", "waits")
        assert {(await handle.wait(LONG)).kind for handle in old} == {"ended"}
        await anyio.sleep(0.6)
        new = await here.worker.execute("ann", "alarm")
        await new.wait(LONG)
        assert await Scheduler(storage, here.realms).forget() == 1
        left = (await ann.executions.list(ExecutionQuery())).executions
        assert {row.id for row in left} == {waits.id, new.id}
        assert len((await bob.executions.list(ExecutionQuery())).executions) == 1


# --- what is changed, and what cannot start ----------------------------------------------------------------------------


async def test_a_schedule_that_is_switched_off_while_a_slot_is_dealt_with_starts_nothing() -> None:
    stage = Stage()
    store = await tenant(stage.storage)
    await save(store, TICKS)
    await stage.put(store, every=60)
    scheduler = stage.scheduler()
    real, schedules = scheduler._new, store.schedules

    async def meanwhile(*arguments: Any) -> Any:
        new = await real(*arguments)
        known = await schedules.get("s")
        assert known is not None
        await schedules.replace(attrs.evolve(known, enabled=False), before=known)
        return new

    scheduler._new = meanwhile  # type: ignore[method-assign]
    stage.time.now += 60
    assert await scheduler.step() == 0
    assert await slots(store) == []
    assert (await store.executions.list(ExecutionQuery())).executions == ()
    known = await schedules.get("s")
    assert known is not None
    assert (known.enabled, known.next_at) == (False, BEGIN + 60), "the change stands as it was made"


async def _one_that_runs(stage: Stage, store: TenantStore, scheduler: Scheduler, overlap: str) -> str:
    """An execution of the first slot that has not ended when the second one comes."""
    await save(store, TICKS)
    await stage.put(store, every=60, overlap=overlap)
    stage.time.now += 60
    assert await scheduler.step() == 1
    (slot,) = await slots(store)
    assert slot.execution_id is not None
    stage.time.now += 60
    return slot.execution_id


async def test_what_cannot_start_cancels_nothing() -> None:
    stage = Stage()
    store = await tenant(stage.storage)
    scheduler = stage.scheduler()
    name = await _one_that_runs(stage, store, scheduler, "cancel_other")
    known = await store.schedules.get("s")
    assert known is not None
    await store.schedules.put(attrs.evolve(known, workflow="nothing"))
    assert await scheduler.step() == 1
    assert [slot.execution_id for slot in await slots(store)] == [name, None]
    assert await store.inbox.messages(name) == []


@pytest.mark.parametrize("overlap", ["skip", "cancel_other"])
async def test_a_tenant_that_has_as_much_as_it_may_keeps_its_overlap_policy(overlap: str) -> None:
    stage = Stage()
    await stage.storage.tenants.create(Tenant("ann", limits=Limits(queued=1)))
    store = await stage.storage.store("ann")
    scheduler = stage.scheduler()
    name = await _one_that_runs(stage, store, scheduler, overlap)
    await scheduler.step()
    later = [slot.execution_id for slot in await slots(store)][1:]
    messages = [message.kind for message in await store.inbox.messages(name)]
    if overlap == "skip":
        assert (later, messages) == ([None], []), "skipped, and not late"
    else:
        assert (later, messages) == ([], ["cancel"]), "it starts when the other has ended"
        await store.journal.append("ann", name, 1, 0, [ExecutionEnded(stage.time.now, ExecutionStatus.CANCELLED)])
        stage.time.now += 2
        assert await stage.scheduler().step() == 1, "one that has not just counted"
        assert len(await slots(store)) == 2
