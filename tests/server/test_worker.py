"""The worker: executions are taken, driven, put away while they wait, and given back."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from engine_room import LONG, Empty, document, ended, node, room, save, storages, tenant, until

from orchestrator_core import NodeContext, node_type
from orchestrator_core.events import AttemptStarted, AttemptSucceeded, CancelRequested, ExecutionEnded, ExecutionStarted
from orchestrator_core.types import ExecutionStatus
from orchestrator_server.errors import Conflict, NotFound, Unavailable
from orchestrator_server.handles import Follower, Handle
from orchestrator_server.realms import Realms
from orchestrator_server.records import (
    POISON_CLAIMS,
    POISONED,
    Created,
    ExecutionQuery,
    Message,
    NewExecution,
    new_execution_id,
)
from orchestrator_server.sealing import Sealer
from orchestrator_server.storage import Storage, TenantStore

pytestmark = pytest.mark.anyio

QUICK = document(node("go", "manual"), node("a", "set", values={"n": "{{ payload.n }}"}), node("b", "nap"))
WAITS = document(node("go", "manual"), node("ask", "wait", signal="yes"), node("b", "nap"), name="waits")
SLEEPS = document(node("go", "manual"), node("z", "wait", **{"for": 1.0}), node("b", "nap"), name="sleeps")


@pytest.fixture(params=["memory", "sqlite"])
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    async with storages(request.param, tmp_path) as opened:
        yield opened


async def accept(store: TenantStore, workflow: Any, payload: Any = None, *, start: str | None = "go") -> str:
    """An execution that waits in the queue."""
    execution_id = new_execution_id()
    event = ExecutionStarted(
        time.time(), execution_id, payload, start=start, seed=1, workflow=workflow.id, version=workflow.version
    )
    await store.executions.create(NewExecution(event))
    return execution_id


# --- execute -----------------------------------------------------------------------------------------------------------


async def test_execute_runs_here_and_the_store_has_it(storage: Storage) -> None:
    store = await tenant(storage)
    await save(store, QUICK)
    async with room(storage) as here:
        handle = await here.worker.execute("ann", "w", {"n": 7})
        answer = await handle.wait(LONG)
        assert answer.kind == "ended"
        assert answer.result is not None
        assert answer.result.output == {"n": 7}
        outcome = await store.executions.outcome(handle.id)
        assert outcome is not None
        assert outcome.output == {"n": 7}
        assert [record["path"] for record in outcome.nodes or ()] == ["go", "a", "b"]
        row = await store.executions.get(handle.id)
        assert row is not None
        assert (row.status, row.worker, row.version) == ("succeeded", None, 1)
        await until(lambda: here.worker.holds == 0)


async def test_an_end_that_was_not_committed_is_not_told(storage: Storage) -> None:
    """Pure nodes run ahead of what is committed: a driver that is fenced off may have seen an end that never was."""
    store = await tenant(storage)
    workflow = await save(store, QUICK)
    name = await accept(store, workflow)
    claim = (await storage.queue.claim("another", 1, LONG))[0]
    (event,) = await store.journal.read("ann", name)
    assert isinstance(event, ExecutionStarted)
    theirs = ExecutionEnded(time.time(), ExecutionStatus.SUCCEEDED, "theirs")
    await store.journal.append("ann", name, 1, claim.fence, [theirs])
    async with room(storage, work=False) as here:
        realm = await here.realms.for_execution("ann", workflow)
        driver = realm.driver(workflow, event, 1)
        driver.machine.receive(event)
        driver.machine.receive(CancelRequested(driver.now(), ""))
        assert driver.machine.ended is not None
        driver.stop(Conflict("another worker has taken over"))
    follower = Follower(1, ())
    follower.driver, follower.away = driver, True
    row = await store.executions.get(name)
    assert row is not None
    answer = await Handle(Created(row, False), store, follower, lambda: True).wait(LONG)
    assert (answer.kind, answer.result) == ("ended", None), "the store has it"


async def test_every_event_that_is_followed_is_in_the_journal(storage: Storage) -> None:
    store = await tenant(storage)
    await save(store, QUICK)
    async with room(storage) as here:
        handle = await here.worker.execute("ann", "w", {"n": 1})
        with anyio.fail_after(LONG):
            seen = [pair async for pair in here.worker.events("ann", handle.id)]
        assert [number for number, _ in seen] == [*range(1, len(seen) + 1)]
        assert isinstance(seen[-1][1], ExecutionEnded)
        assert [event for _, event in seen] == list(await store.journal.read("ann", handle.id))
        later = [pair async for pair in here.worker.events("ann", handle.id, after=3)]
        assert later == seen[3:]
        with pytest.raises(NotFound):
            _ = [pair async for pair in here.worker.events("ann", "exe_nothing")]


async def test_the_same_idempotency_key_gives_the_same_execution(storage: Storage) -> None:
    store = await tenant(storage)
    await save(store, QUICK)
    async with room(storage) as here:
        first = await here.worker.execute("ann", "w", {"n": 1}, idempotency_key="k", fingerprint="f")
        await first.wait(LONG)
        second = await here.worker.execute("ann", "w", {"n": 2}, idempotency_key="k", fingerprint="g")
        assert second.id == first.id
        assert (second.created.new, second.created.fingerprint) == (False, "f")
        assert (await second.wait(LONG)).kind == "ended"
        await until(lambda: here.worker.holds == 0)
        assert len((await store.executions.list(_query())).executions) == 1


async def test_a_deadline_answers_and_the_execution_goes_on(storage: Storage) -> None:
    store = await tenant(storage)
    await save(store, document(node("go", "manual"), node("b", "nap", seconds=0.5)))
    async with room(storage) as here:
        handle = await here.worker.execute("ann", "w")
        assert (await handle.wait(0.1)).kind == "deadline"
        assert (await handle.wait(LONG)).kind == "ended"


async def test_a_respond_node_answers_before_the_end(storage: Storage) -> None:
    store = await tenant(storage)
    nodes = [node("go", "manual"), node("r", "respond", status=201, body="hello"), node("b", "nap", seconds=0.4)]
    await save(store, document(*nodes))
    async with room(storage) as here:
        handle = await here.worker.execute("ann", "w")
        answer = await handle.wait(LONG, respond=True)
        assert answer.kind == "responded"
        assert answer.response == {"status": 201, "headers": {}, "body": "hello"}
        assert (await store.executions.get(handle.id)).status == "running"  # type: ignore[union-attr]
        committed = await store.journal.read("ann", handle.id)
        assert any(getattr(event, "path", None) == "r" and hasattr(event, "outputs") for event in committed)


async def test_who_waits_for_a_response_is_told_that_none_can_come(storage: Storage) -> None:
    store = await tenant(storage)
    nodes = [
        node("go", "manual"),
        node("i", "if", condition="{{ false }}"),
        node("r", "respond"),
        node("b", "nap", seconds=0.4),
    ]
    content = document(*nodes)
    content["edges"] = [
        {"source": "go", "target": "i"},
        {"source": "i", "port": "true", "target": "r"},
        {"source": "i", "port": "false", "target": "b"},
    ]
    await save(store, content)
    async with room(storage) as here:
        handle = await here.worker.execute("ann", "w")
        assert (await handle.wait(LONG, respond=True)).kind == "no_response"
        assert (await handle.wait(LONG)).kind == "ended"


async def test_a_wait_answers_who_waits_for_a_response(storage: Storage) -> None:
    store = await tenant(storage)
    await save(
        store, document(node("go", "manual"), node("ask", "wait", signal="yes"), node("r", "respond"), name="waits")
    )
    async with room(storage) as here:
        handle = await here.worker.execute("ann", "waits")
        assert (await handle.wait(LONG, respond=True)).kind == "waiting"


async def test_a_short_wait_answers_too(storage: Storage) -> None:
    store = await tenant(storage)
    nodes = [node("go", "manual"), node("z", "wait", **{"for": 0.8}), node("r", "respond", body=1)]
    await save(store, document(*nodes))
    async with room(storage) as here:
        handle = await here.worker.execute("ann", "w")
        assert (await handle.wait(LONG, respond=True)).kind == "waiting"
        assert here.worker.holds == 1  # it is not worth parking
        assert (await handle.wait(LONG)).kind == "ended"


async def test_what_does_not_fit_is_refused_and_nothing_is_created(storage: Storage) -> None:
    store = await tenant(storage)
    await save(store, QUICK)
    await save(store, document(node("go", "manual"), name="draft"), draft=True)
    async with room(storage) as here:
        for call in (
            here.worker.execute("bob", "w"),
            here.worker.execute("ann", "nothing"),
            here.worker.execute("ann", "draft"),
            here.worker.execute("ann", "w", version=2),
        ):
            with pytest.raises(NotFound):
                await call
        for wrong in ({"payload": float("nan")}, {"pins": {"zz": {"main": 1}}}, {"start": "zz"}):
            with pytest.raises(Exception, match=r"\$|zz"):
                await here.worker.execute("ann", "w", **wrong)
        assert not (await store.executions.list(_query())).executions
        pinned = await here.worker.execute("ann", "w", {}, pins={"a": {"main": "pinned"}})
        answer = await pinned.wait(LONG)
        assert answer.result is not None
        assert answer.result.output == "pinned"


# --- the queue ---------------------------------------------------------------------------------------------------------


async def test_what_is_in_the_queue_is_taken_by_some_worker(storage: Storage) -> None:
    store = await tenant(storage)
    workflow = await save(store, QUICK)
    before = await accept(store, workflow, {"n": 1})
    async with room(storage) as here:
        assert await ended(store, before) == "succeeded"
        after = await accept(store, workflow, {"n": 2})
        handle = await here.worker.follow("ann", after)
        assert (await handle.wait(LONG)).kind == "ended"
        outcome = await store.executions.outcome(after)
        assert outcome is not None
        assert outcome.output == {"n": 2}


async def test_what_was_only_accepted_has_lost_nothing(storage: Storage) -> None:
    store = await tenant(storage)
    content = document({**node("b", "nap"), "on_lost": "fail"})
    workflow = await save(store, content)
    name = await accept(store, workflow, start=None)
    async with room(storage):
        assert await ended(store, name) == "succeeded"


async def test_a_version_that_is_running_is_not_touched_by_saving(storage: Storage) -> None:
    store = await tenant(storage)
    old = await save(store, document(node("go", "manual"), node("a", "set", values={"v": 1})))
    queued = await accept(store, old)
    await save(store, document(node("go", "manual"), node("a", "set", values={"v": 2})))
    async with room(storage) as here:
        await ended(store, queued)
        outcome = await store.executions.outcome(queued)
        assert outcome is not None
        assert outcome.output == {"v": 1}
        answer = await (await here.worker.execute("ann", "w")).wait(LONG)
        assert answer.result is not None
        assert answer.result.output == {"v": 2}


async def test_a_tenant_with_many_executions_does_not_starve_another(storage: Storage) -> None:
    many, few = await tenant(storage, "many"), await tenant(storage, "few")
    slow = document(node("go", "manual"), node("b", "nap", seconds=0.02))
    workflow, other = await save(many, slow), await save(few, slow)
    crowd = [await accept(many, workflow) for _ in range(200)]
    async with room(storage, concurrency=5) as here:
        await until(lambda: here.worker.holds == 5)
        began = anyio.current_time()
        late = await accept(few, other)
        assert await ended(few, late) == "succeeded"
        waited = anyio.current_time() - began
        done = [(await many.executions.get(name)).finished_at for name in crowd]  # type: ignore[union-attr]
        assert sum(at is not None for at in done) < 150, f"it came after nearly all others, {waited:.2f} s"


async def test_a_tenants_limit_holds_for_the_queue_and_for_execute(storage: Storage) -> None:
    store = await tenant(storage, running=2)
    workflow = await save(store, document(node("go", "manual"), node("b", "nap", seconds=0.15)))
    async with room(storage) as here:
        names = [await accept(store, workflow) for _ in range(3)]
        handles = [await here.worker.execute("ann", "w") for _ in range(3)]
        most = 0
        while not all([(await store.executions.get(name)).finished_at for name in names]):  # type: ignore[union-attr]
            most = max(most, here.worker.holds)
            await anyio.sleep(0.01)
        assert most == 2
        assert {(await handle.wait(LONG)).kind for handle in handles} == {"ended"}


# --- waiting -----------------------------------------------------------------------------------------------------------


async def test_what_waits_holds_no_lease_and_no_memory_and_a_signal_wakes_it(storage: Storage) -> None:
    store = await tenant(storage)
    await save(store, WAITS)
    async with room(storage) as here:
        handle = await here.worker.execute("ann", "waits")
        await until(lambda: here.worker.holds == 0)
        assert here.engine.driver(handle.id) is None
        await until(lambda: _is(store, handle.id, "waiting"))
        row = await store.executions.get(handle.id)
        assert row is not None
        assert (row.worker, row.wake_at) == (None, None)
        assert (await handle.wait(LONG)).kind == "waiting"
        assert await store.inbox.post(handle.id, Message("s1", "signal", "ask", "yes", {"by": "ann"}))
        assert await ended(store, handle.id) == "succeeded"
        outcome = await store.executions.outcome(handle.id)
        assert outcome is not None
        assert outcome.output == {"by": "ann"}
        assert not await store.inbox.messages(handle.id)


async def test_what_waits_long_is_woken_by_its_time(storage: Storage) -> None:
    store = await tenant(storage)
    await save(store, SLEEPS)
    async with room(storage, near=0.1) as here:
        began = time.time()
        handle = await here.worker.execute("ann", "sleeps", "p")
        await until(lambda: here.worker.holds == 0)
        assert here.engine.driver(handle.id) is None
        assert await ended(store, handle.id) == "succeeded"
        assert 1.0 <= time.time() - began < 5


async def test_what_waits_shortly_stays_here(storage: Storage) -> None:
    store = await tenant(storage)
    await save(store, document(node("go", "manual"), node("z", "wait", **{"for": 0.2}), name="nap"))
    async with room(storage) as here:
        handle = await here.worker.execute("ann", "nap")
        answer = await handle.wait(LONG)
        assert answer.result is not None
        row = await store.executions.get(handle.id)
        assert row is not None
        assert row.fence == 1  # it was never given back


async def test_a_parked_execution_can_be_cancelled(storage: Storage) -> None:
    store = await tenant(storage)
    await save(store, WAITS)
    async with room(storage) as here:
        handle = await here.worker.execute("ann", "waits")
        await until(lambda: here.worker.holds == 0)
        await store.inbox.post(handle.id, Message("c1", "cancel"))
        assert await ended(store, handle.id) == "cancelled"
        assert (await handle.wait(LONG)).kind == "ended"


async def test_a_running_execution_gets_its_messages_once(storage: Storage) -> None:
    store = await tenant(storage)
    nodes = [node("go", "manual"), node("b", "nap", seconds=0.6), node("ask", "wait", signal="yes")]
    await save(store, document(*nodes))
    async with room(storage) as here:
        handle = await here.worker.execute("ann", "w")
        for number in range(3):
            await store.inbox.post(handle.id, Message("same", "signal", "ask", "yes", number))
            await anyio.sleep(0.15)
        await store.inbox.post(handle.id, Message("m2", "signal", "nowhere", "yes"))
        assert await ended(store, handle.id) == "succeeded"
        outcome = await store.executions.outcome(handle.id)
        assert outcome is not None
        assert outcome.output == 0  # what was sent first
        signals = [e for e in await store.journal.read("ann", handle.id) if type(e).__name__ == "SignalReceived"]
        assert [event.id for event in signals] == ["same"]  # type: ignore[union-attr]


async def test_a_message_that_means_nothing_does_not_keep_a_worker_busy(storage: Storage) -> None:
    store = await tenant(storage)
    await save(store, WAITS)
    async with room(storage) as here:
        handle = await here.worker.execute("ann", "waits")
        await until(lambda: here.worker.holds == 0)
        await store.inbox.post(handle.id, Message("m", "signal", "nowhere", "yes"))
        await until(lambda: _no_mail(store, handle.id))
        await until(lambda: here.worker.holds == 0)
        await until(lambda: _is(store, handle.id, "waiting"))
        fence = (await store.executions.get(handle.id)).fence  # type: ignore[union-attr]
        await anyio.sleep(0.5)
        assert (await store.executions.get(handle.id)).fence == fence  # type: ignore[union-attr]


# --- children ----------------------------------------------------------------------------------------------------------

INNER = document(
    node("go", "manual"), node("ask", "wait", signal="yes"), node("s", "set", values={"v": 1}), name="inner"
)
OUTER = document(node("go", "manual"), node("call", "workflow", workflow="inner"), name="outer")


async def test_a_child_runs_under_its_parents_fence_and_gets_its_messages(storage: Storage) -> None:
    store = await tenant(storage)
    await save(store, INNER)
    await save(store, OUTER)
    async with room(storage) as here:
        handle = await here.worker.execute("ann", "outer")
        await until(lambda: here.engine.driver(handle.id) is not None and here.engine.driver(handle.id).children)  # type: ignore[union-attr]
        child_id = next(iter(here.engine.driver(handle.id).children))  # type: ignore[union-attr]
        await until(lambda: store.executions.get(child_id))
        row = await store.executions.get(child_id)
        assert row is not None
        assert (row.fence, row.queued, row.version) == (1, False, 1)
        await store.inbox.post(child_id, Message("s", "signal", "ask", "yes"))
        assert await ended(store, handle.id) == "succeeded"
        assert await ended(store, child_id) == "succeeded"


async def _child(store: TenantStore, parent: str) -> str:
    """The child of an execution, once there is one."""
    found: list[str] = []

    async def there() -> bool:
        page = await store.executions.list(_query())
        found[:] = [row.id for row in page.executions if row.parent == parent]
        return bool(found)

    await until(there)
    return found[0]


async def save_nested(store: TenantStore) -> None:
    """A workflow `outer` that calls one that calls one that waits."""
    await save(store, INNER)
    await save(store, document(node("go", "manual"), node("call", "workflow", workflow="inner"), name="middle"))
    await save(store, document(node("go", "manual"), node("call", "workflow", workflow="middle"), name="outer"))


async def test_a_parent_whose_child_waits_holds_no_lease_and_no_memory(storage: Storage) -> None:
    store = await tenant(storage)
    await save_nested(store)
    async with room(storage) as here:
        handle = await here.worker.execute("ann", "outer")
        child = await _child(store, handle.id)
        grandchild = await _child(store, child)
        for _ in range(2):
            await until(lambda: _is(store, handle.id, "waiting"))
            assert here.worker.holds == 0
            for name in (handle.id, child, grandchild):
                row = await store.executions.get(name)
                assert row is not None
                assert (row.status, row.worker, row.wake_at) == ("waiting", None, None)
            assert here.engine.driver(grandchild) is None
            # What means nothing to it wakes it too, and is dropped.
            await store.inbox.post(grandchild, Message("odd", "signal", "nobody", "yes"))
            await until(lambda: _no_mail(store, grandchild))
        await store.inbox.post(grandchild, Message("s", "signal", "ask", "yes", {"by": "ann"}))
        for name in (grandchild, child, handle.id):
            assert await ended(store, name) == "succeeded"


async def test_what_was_left_while_nobody_worked_comes_before_anything_else(storage: Storage) -> None:
    """A cancel before the next effect; an answer in time before the end of that time, for a child too; a late one after it."""
    store = await tenant(storage)
    await save(store, document(node("go", "manual"), node("ask", "wait", signal="yes", expires=4.0), name="asks"))
    await save(store, document(node("go", "manual"), node("call", "workflow", workflow="asks"), name="outer"))
    effect = await save(store, document(node("go", "manual"), node("e", "nap"), name="effect"))
    async with room(storage, near=0.0) as here:
        alone = [(await here.worker.execute("ann", "asks")).id for _ in range(2)]
        roots = [(await here.worker.execute("ann", "outer")).id for _ in range(2)]
        for name in (*alone, *roots):
            await until(lambda: _is(store, name, "waiting"))  # noqa: B023 - it is called here
    queued = await accept(store, effect)
    assert await store.inbox.post(queued, Message("c", "cancel"))
    first, last = [[one[n], await _child(store, roots[n])] for n, one in ((0, alone), (1, alone))]
    for name in first:
        assert await store.inbox.post(name, Message("s", "signal", "ask", "yes", "said"))
    await anyio.sleep(4.0)
    for name in last:
        assert await store.inbox.post(name, Message("s", "signal", "ask", "yes", "said"))
    async with room(storage):
        for name in (queued, *alone, *roots):
            await ended(store, name)
    outputs = [(await store.executions.outcome(name)).output for name in (*alone, *roots)]  # type: ignore[union-attr]
    assert outputs == ["said", None, "said", None]
    row = await store.executions.get(queued)
    assert row is not None
    assert row.status == "cancelled"
    assert not any(isinstance(event, AttemptSucceeded) for event in await store.journal.read("ann", queued))


async def test_a_child_that_cannot_go_on_is_not_given_up_alone(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator_server.worker._LONGEST", 0.02)

    @node_type("lost.wait")
    async def waits(ctx: NodeContext, config: Empty, input: Any) -> Any:
        if ctx.resumed is None:
            ctx.wait_for_signal("yes")
        return "woken"

    store = await tenant(storage)
    await save(store, document(node("go", "manual"), node("ask", "lost.wait"), name="inner"))
    await save(store, OUTER)
    async with room(storage, nodes=[waits]) as here:
        root = (await here.worker.execute("ann", "outer")).id
        await until(lambda: _is(store, root, "waiting"))
    child = await _child(store, root)
    assert await store.inbox.post(child, Message("s", "signal", "ask", "yes"))
    async with room(storage):  # its plugin is not there
        assert await ended(store, root) == "failed"
    row = await store.executions.get(root)
    assert row is not None
    assert row.error_code == POISONED, "it may be brought back"
    assert await storage.queue.revive("ann", root)
    async with room(storage, nodes=[waits]):
        assert await ended(store, root) == "succeeded"
        assert await ended(store, child) == "succeeded"


async def test_a_lease_that_is_lost_while_the_inbox_is_read_leaves_nothing_behind(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stayed in the engine would keep this worker from it for good."""
    store = await tenant(storage)
    workflow = await save(store, QUICK)
    inbox, queue = type(store.inbox), type(storage.queue)
    read, renew = inbox.messages, queue.renew
    down = True
    async with room(storage, lease=0.6, poll=0.1) as here:

        async def late(self: Any, name: str) -> Any:
            nonlocal down
            if down:
                await until(lambda: here.worker.holds == 0)
                down = False
            return await read(self, name)

        async def silent(self: Any, claims: Any, lease: float) -> Any:
            if down:
                raise Unavailable("the database does not answer")
            return await renew(self, claims, lease)

        monkeypatch.setattr(inbox, "messages", late)
        monkeypatch.setattr(queue, "renew", silent)
        name = await accept(store, workflow, {"n": 1})
        assert await ended(store, name, seconds=10) == "succeeded"
        assert not down


async def test_a_key_that_was_left_out_is_no_fault_of_executions(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator_server.worker._LONGEST", 0.02)
    store = await tenant(storage)
    workflow = await save(store, QUICK)
    await store.secrets.put(Sealer({"old": b"2" * 32}, "old").seal("ann", "token", 1, "value"))
    name = await accept(store, workflow, {"n": 1})
    async with room(storage):

        async def claimed_often() -> bool:
            row = await store.executions.get(name)
            assert row is not None
            assert (row.status, row.seq) == ("running", 1)
            return row.fence > POISON_CLAIMS + 1

        await until(claimed_often)
        await store.secrets.delete("token")
        assert await ended(store, name) == "succeeded"


async def test_a_family_too_large_to_be_brought_back_for_every_message_stays(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator_server.worker._FAMILY", 2)
    store = await tenant(storage)
    await save_nested(store)
    async with room(storage) as here:
        handle = await here.worker.execute("ann", "outer")
        grandchild = await _child(store, await _child(store, handle.id))
        await until(lambda: here.engine.driver(grandchild) is not None and here.engine.driver(handle.id).is_still())  # type: ignore[union-attr]
        await anyio.sleep(1.0)  # a smaller one is put away in a twentieth of it
        assert here.worker.holds == 1
        assert await _is(store, handle.id, "running")
        await store.inbox.post(grandchild, Message("s", "signal", "ask", "yes"))
        assert await ended(store, handle.id) == "succeeded"


async def test_cancelling_a_parent_that_was_put_away_cancels_its_children(storage: Storage) -> None:
    store = await tenant(storage)
    await save_nested(store)
    async with room(storage) as here:
        handles = [await here.worker.execute("ann", "outer") for _ in range(10)]
        for handle in handles:
            child = await _child(store, handle.id)
            grandchild = await _child(store, child)
            await until(lambda: here.worker.holds == 0)
            await store.inbox.post(handle.id, Message("c", "cancel"))
            for name in (grandchild, child, handle.id):
                assert await ended(store, name) == "cancelled"


async def test_what_is_wrong_with_one_keeps_no_message_from_another(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = document(node("go", "manual"), node("b", "nap", seconds=60.0), name="busy")
    stores = [await tenant(storage, name) for name in ("ann", "zoe")]
    for store in stores:
        await save(store, busy)
        await save(store, INNER)
        await save(store, OUTER)
    inbox: Any = type(stores[0].inbox)
    real = inbox.messages
    async with room(storage) as here:
        bad = await here.worker.execute("ann", "busy")
        good = await here.worker.execute("zoe", "busy")

        async def broken(self: Any, name: str) -> Any:
            if name == bad.id:
                raise NotFound("its tenant is half gone")
            return await real(self, name)

        monkeypatch.setattr(inbox, "messages", broken)
        for store, handle in zip(stores, (bad, good), strict=True):
            await store.inbox.post(handle.id, Message("c", "cancel"))
        assert await ended(stores[1], good.id) == "cancelled"
        family = await here.worker.execute("zoe", "outer")
        await until(lambda: _is(stores[1], family.id, "waiting"))


async def test_a_parent_is_due_when_its_childs_time_has_come(storage: Storage) -> None:
    store = await tenant(storage)
    await save(store, {**SLEEPS, "id": "inner"})
    await save(store, OUTER)
    async with room(storage, near=0.05, poll=20.0) as here:
        handle = await here.worker.execute("ann", "outer")
        await until(lambda: _is(store, handle.id, "waiting"))
        assert await ended(store, handle.id, seconds=10) == "succeeded"


async def test_what_is_due_soon_after_it_was_given_back_is_not_overlooked(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its end here and its row the queue was looked at, for the last time in a long while."""
    store, queue = await tenant(storage), type(storage.queue)
    await save(store, {**SLEEPS, "id": "inner"})
    await save(store, OUTER)
    release: Any = queue.release

    async def late(*arguments: Any, **more: Any) -> Any:
        await anyio.sleep(0.4)
        return await release(*arguments, **more)

    monkeypatch.setattr(queue, "release", late)
    async with room(storage, near=0.05, poll=60.0) as here:
        handle = await here.worker.execute("ann", "outer")
        assert await ended(store, handle.id, seconds=20) == "succeeded"


async def test_no_message_for_a_child_is_lost_however_it_meets_the_parking(storage: Storage) -> None:
    store = await tenant(storage)
    twice = document(node("go", "manual"), node("ask", "wait", signal="yes"), node("more", "wait", signal="yes"))
    await save(store, {**twice, "id": "inner"})
    await save(store, OUTER)
    async with room(storage, near=0.0) as one, room(storage, name="w2", near=0.0), anyio.create_task_group() as group:
        handles = [await one.worker.execute("ann", "outer") for _ in range(25)]

        async def answer(number: int, parent: str) -> None:
            child = await _child(store, parent)
            for name in ("ask", "more"):
                await anyio.sleep(number * 0.004)
                await store.inbox.post(child, Message(f"{name}{number}", "signal", name, "yes", number))

        for number, handle in enumerate(handles):
            group.start_soon(answer, number, handle.id)
        for number, handle in enumerate(handles):
            assert await ended(store, handle.id) == "succeeded"
            outcome = await store.executions.outcome(handle.id)
            assert outcome is not None
            assert outcome.output == number


async def test_what_was_opened_when_the_database_went_away_does_not_stand_in_its_own_way(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its events were read and it was resumed; then its messages could not be read."""
    monkeypatch.setattr("orchestrator_server.worker._LONGEST", 0.05)
    store = await tenant(storage)
    await save(store, WAITS)
    inbox: Any = type(store.inbox)
    real, failures = inbox.messages, 1

    async def flaky(self: Any, name: str) -> Any:
        nonlocal failures
        if failures:
            failures -= 1
            raise Unavailable("the database does not answer")
        return await real(self, name)

    async with room(storage) as here:
        handle = await here.worker.execute("ann", "waits")
        await until(lambda: _is(store, handle.id, "waiting"))
        monkeypatch.setattr(inbox, "messages", flaky)
        assert await store.inbox.post(handle.id, Message("s1", "signal", "ask", "yes", {"by": "ann"}))
        assert await ended(store, handle.id) == "succeeded"
        assert failures == 0
        row = await store.executions.get(handle.id)
        assert row is not None
        assert row.fence < 10, "it is not claimed again and again in vain"


async def test_a_child_that_cannot_be_written_does_not_leave_its_parent_waiting(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator_server.worker._LONGEST", 0.05)
    store = await tenant(storage)
    await save(store, document(node("go", "manual"), node("s", "nap"), name="inner"))
    await save(store, OUTER)
    journal: Any = type(store.journal)
    real, failures = journal.append, 1

    async def flaky(self: Any, tenant: str, name: str, seq: int, *rest: Any, **more: Any) -> None:
        nonlocal failures
        if seq == 0 and failures:
            failures -= 1
            raise Unavailable("the database does not answer")
        await real(self, tenant, name, seq, *rest, **more)

    monkeypatch.setattr(journal, "append", flaky)
    async with room(storage) as here:
        handle = await here.worker.execute("ann", "outer")
        assert await ended(store, handle.id) == "succeeded"
        assert failures == 0


async def test_a_childs_version_is_the_one_that_was_active_when_its_parent_started(storage: Storage) -> None:
    store = await tenant(storage)
    await save(store, document(node("go", "manual"), node("s", "set", values={"v": 1}), name="inner"))
    nodes = [node("go", "manual"), node("ask", "wait", signal="yes"), node("call", "workflow", workflow="inner")]
    await save(store, document(*nodes, name="outer"))
    async with room(storage) as here:
        kept = await here.worker.execute("ann", "outer")
        gone = await here.worker.execute("ann", "outer")
        await until(lambda: here.worker.holds == 0)
        await save(store, document(node("go", "manual"), node("s", "set", values={"v": 2}), name="inner"))
        await store.inbox.post(kept.id, Message("s", "signal", "ask", "yes"))
        assert await ended(store, kept.id) == "succeeded"
        assert (await store.executions.outcome(kept.id)).output == {"v": 1}  # type: ignore[union-attr]
        new = await here.worker.execute("ann", "outer")
        await until(lambda: here.worker.holds == 0)
        await store.inbox.post(new.id, Message("s", "signal", "ask", "yes"))
        await ended(store, new.id)
        assert (await store.executions.outcome(new.id)).output == {"v": 2}  # type: ignore[union-attr]
        await store.workflows.delete("inner")
        await store.inbox.post(gone.id, Message("s", "signal", "ask", "yes"))
        await ended(store, gone.id)
        assert (await store.executions.outcome(gone.id)).output == {"v": 1}  # type: ignore[union-attr]


# --- leases ------------------------------------------------------------------------------------------------------------


async def test_a_worker_that_slept_through_its_lease_writes_nothing_any_more(storage: Storage) -> None:
    store = await tenant(storage)
    workflow = await save(store, document(node("go", "manual"), node("b", "nap", seconds=0.8), node("c", "nap")))
    name = await accept(store, workflow, "p")
    async with (
        room(storage, name="slow", lease=0.3, concurrency=1, work=False) as slow,
        anyio.create_task_group() as group,
    ):
        slow.worker._renew_round = anyio.sleep_forever  # type: ignore[method-assign]  # as if it was stopped
        group.start_soon(slow.worker.run)
        await until(lambda: _has(store, name, "b"))
        driver = slow.engine.driver(name)
        assert driver is not None
        async with room(storage, name="quick", lease=5.0):
            await until(lambda: driver.done)
            assert isinstance(driver.failure, Conflict)
            assert await ended(store, name) == "succeeded"
        slow.worker.stop()
    events = await store.journal.read("ann", name)
    starts = [event.path for event in events if isinstance(event, AttemptStarted)]
    assert starts == ["go", "b", "c"]
    row = await store.executions.get(name)
    assert row is not None
    assert row.seq == len(events)


async def test_a_lost_lease_stops_the_driver_at_once(storage: Storage) -> None:
    store = await tenant(storage)
    await save(store, document(node("go", "manual"), node("b", "nap", seconds=LONG)))
    async with room(storage, lease=0.6) as here:
        handle = await here.worker.execute("ann", "w")
        await until(lambda: _has(store, handle.id, "b"))
        await store.executions.delete(handle.id)
        await until(lambda: here.worker.holds == 0, seconds=3)
        assert here.engine.driver(handle.id) is None


async def test_leases_are_renewed_while_a_node_works(storage: Storage) -> None:
    store = await tenant(storage)
    await save(store, document(node("go", "manual"), node("b", "nap", seconds=1.2)))
    async with room(storage, lease=0.5) as here:
        handle = await here.worker.execute("ann", "w")
        assert (await handle.wait(LONG)).kind == "ended"
        row = await store.executions.get(handle.id)
        assert row is not None
        assert row.fence == 1


async def test_stopping_gives_the_leases_back_and_another_goes_on(storage: Storage) -> None:
    store = await tenant(storage)
    await save(store, document(node("go", "manual"), node("b", "nap", seconds=LONG), node("c", "nap")))
    await save(store, QUICK)
    async with room(storage, grace=0.2) as here:
        handles = [await here.worker.execute("ann", "w", version=1) for _ in range(5)]
        await until(lambda: _has(store, handles[-1].id, "b"))
        began = time.monotonic()
    assert time.monotonic() - began < 10
    for handle in handles:
        row = await store.executions.get(handle.id)
        assert row is not None
        assert (row.status, row.worker, row.claims) == ("running", None, 0)
        assert row.wake_at is not None
        assert row.wake_at <= await storage.now()


async def test_stopping_lets_what_is_quick_end(storage: Storage) -> None:
    store = await tenant(storage)
    await save(store, document(node("go", "manual"), node("b", "nap", seconds=0.3)))
    async with room(storage, grace=5.0) as here:
        handle = await here.worker.execute("ann", "w")
    assert await ended(store, handle.id, seconds=1) == "succeeded"


async def test_what_no_worker_can_work_on_is_quarantined(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator_server.worker._LONGEST", 0.05)
    store = await tenant(storage)
    workflow = await save(store, QUICK)
    name = await accept(store, workflow)
    real = storage.queue.claim
    claims = 0

    async def counted(*arguments: Any, **more: Any) -> Any:
        nonlocal claims
        found = await real(*arguments, **more)
        claims += len(found)
        return found

    monkeypatch.setattr(storage.queue, "claim", counted)

    async def missing(*_: Any) -> Any:
        raise NotFound("the version is not there")

    monkeypatch.setattr(Realms, "workflow", missing)
    async with room(storage):
        assert await ended(store, name) == "failed"
        row = await store.executions.get(name)
        assert row is not None
        assert row.error_code == POISONED
        assert claims == POISON_CLAIMS


# --- a killed process --------------------------------------------------------------------------------------------------


def start_worker(folder: Path, name: str, lease: str) -> subprocess.Popen[bytes]:
    """A worker on the folder's database, in a process of its own."""
    script = Path(__file__).with_name("run_worker.py")
    return subprocess.Popen(
        [sys.executable, str(script), f"sqlite:///{folder}/test.db", name, lease], stderr=subprocess.PIPE
    )


async def test_an_execution_goes_on_after_its_process_was_killed(tmp_path: Path) -> None:
    async with storages("sqlite", tmp_path) as storage:
        store = await tenant(storage)
        nodes = [node("go", "manual"), node("a", "nap"), node("b", "nap", seconds=2.0), node("c", "shows")]
        workflow = await save(store, document(*nodes))
        name = await accept(store, workflow, "p")
        process = start_worker(tmp_path, "killed", "1.0")
        try:
            await until(lambda: _has(store, name, "b"))
            process.send_signal(signal.SIGKILL)
            process.wait(5)
        finally:
            process.kill()
            process.communicate()
        before = await store.journal.read("ann", name)
        killed = time.monotonic()
        async with room(storage, name="other", lease=1.0):
            assert await ended(store, name) == "succeeded"
        assert (
            time.monotonic() - killed < 1.0 + 2.0 + 2.0 + 1.0
        )  # lease, the node's own time, two seconds, a busy machine
        events = await store.journal.read("ann", name)
        assert list(events[: len(before)]) == list(before)
        assert [e.path for e in events if isinstance(e, AttemptStarted)] == ["go", "a", "b", "c"]
        outcome = await store.executions.outcome(name)
        assert outcome is not None
        assert outcome.output["key"]


def _query() -> Any:
    return ExecutionQuery()


async def _is(store: TenantStore, name: str, status: str) -> bool:
    row = await store.executions.get(name)
    return row is not None and row.status == status


async def _no_mail(store: TenantStore, name: str) -> bool:
    return not await store.inbox.messages(name)


async def _has(store: TenantStore, name: str, path: str) -> bool:
    """Whether an attempt of a node has begun."""
    return any(isinstance(e, AttemptStarted) and e.path == path for e in await store.journal.read(store.tenant, name))
