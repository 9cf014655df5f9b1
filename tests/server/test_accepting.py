"""An execution runs before it is accepted, and nobody can tell."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from engine_room import LONG, document, node, room, save, storages, tenant, until

from orchestrator_core.events import AttemptStarted, ExecutionEnded
from orchestrator_server.errors import NotFound, Unavailable
from orchestrator_server.records import ExecutionQuery
from orchestrator_server.storage import Storage, TenantStore

pytestmark = pytest.mark.anyio

PURE = document(
    node("go", "manual"), node("a", "set", values={"n": "{{ payload.n }}"}), node("b", "set", values={"ok": 1})
)
EFFECT = document(node("go", "manual"), node("b", "nap", seconds=0.3), name="effect")
SLOW = "let n = 0; for (let i = 0; i < 1e8; i++) n += i; return n"


@pytest.fixture(params=["memory", "sqlite"])
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    async with storages(request.param, tmp_path) as opened:
        yield opened


def batches(store: TenantStore, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What is written, as it is written: the kinds of events of each commit."""
    written: list[list[str]] = []
    create, append = type(store.executions).create, type(store.journal).append

    async def creating(self: Any, new: Any) -> Any:
        written.append([type(event).__name__ for event in (new.event, *new.events)])
        return await create(self, new)

    async def appending(self: Any, *arguments: Any, **more: Any) -> None:
        written.append([type(event).__name__ for event in arguments[4]])
        await append(self, *arguments, **more)

    monkeypatch.setattr(type(store.executions), "create", creating)
    monkeypatch.setattr(type(store.journal), "append", appending)
    return written


async def test_pure_nodes_are_accepted_and_ended_by_one_commit(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await tenant(storage)
    await save(store, PURE)
    written = batches(store, monkeypatch)
    async with room(storage) as here:
        handle = await here.worker.execute("ann", "w", {"n": 1})
        answer = await handle.wait(LONG)
        assert answer.result is not None
        assert len(written) == 1
        assert (written[0][0], written[0][-1]) == ("ExecutionStarted", "ExecutionEnded")
        row = await store.executions.get(handle.id)
        assert row is not None
        assert (row.status, row.worker, row.seq) == ("succeeded", None, len(written[0]))
        assert here.worker.holds == 0


@pytest.mark.parametrize("workflow", ["w", "effect"])
async def test_what_has_ended_is_freed_without_the_collector(storage: Storage, workflow: str) -> None:
    """Which would stop everybody when it comes: a busy server would leave it a hundred thousand objects in seconds."""
    store = await tenant(storage)
    await save(store, PURE)
    await save(store, document(node("go", "manual"), node("b", "nap"), name="effect"))
    async with room(storage) as here:

        async def run(count: int) -> None:
            for _ in range(count):
                assert (await (await here.worker.execute("ann", workflow, {"n": 1})).wait(LONG)).kind == "ended"

        await run(5)
        gc.collect()
        gc.disable()
        try:
            await run(50)
            await until(lambda: here.worker.holds == 0)
            assert gc.collect() < 50 * 20, "of some hundred that each execution is made of"
        finally:
            gc.enable()


async def test_an_effect_begins_when_its_start_is_committed(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await tenant(storage)
    await save(store, EFFECT)
    written = batches(store, monkeypatch)
    async with room(storage) as here:
        handle = await here.worker.execute("ann", "effect")
        events = await store.journal.read("ann", handle.id)
        assert events[-1] == AttemptStarted(events[-1].at, "b", 1)
        assert (await handle.wait(LONG)).kind == "ended"
        assert len(written) == 2


async def test_what_takes_long_is_accepted_meanwhile(storage: Storage) -> None:
    store = await tenant(storage)
    await save(store, document(node("go", "manual"), node("c", "code", source=SLOW), name="slow"))
    async with room(storage) as here:
        handle = await here.worker.execute("ann", "slow")
        events = await store.journal.read("ann", handle.id)
        assert events, "it is accepted when it is answered for"
        assert not any(isinstance(event, ExecutionEnded) for event in events), "and has not ended: it takes a second"
        assert (await handle.wait(LONG)).kind == "ended"


async def test_an_idempotency_key_that_was_used_drops_what_ran(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await tenant(storage)
    await save(store, PURE)
    await save(store, EFFECT)
    written = batches(store, monkeypatch)
    async with room(storage) as here:
        found: list[str] = []

        async def call(name: str) -> None:
            handle = await here.worker.execute("ann", name, {"n": 1}, idempotency_key=name)
            assert (await handle.wait(LONG)).kind == "ended"
            found.append(handle.id)

        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(call, "w")
                group.start_soon(call, "effect")
        assert len(set(found)) == 2
        await until(lambda: here.worker.holds == 0)
        started = sum(batch[0] == "AttemptSucceeded" for batch in written)
        assert started == 1, "an effect of one execution, and no other's"


async def test_a_database_that_does_not_answer_is_told_to_whoever_asked(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await tenant(storage)
    await save(store, PURE)
    async with room(storage) as here:

        async def silent(self: Any, new: Any) -> Any:
            raise Unavailable("the database does not answer")

        with monkeypatch.context() as patched:
            patched.setattr(type(store.executions), "create", silent)
            with pytest.raises(Unavailable):
                await here.worker.execute("ann", "w", {"n": 1})
        await until(lambda: here.worker.holds == 0)
        handle = await here.worker.execute("ann", "w", {"n": 1})
        assert (await handle.wait(LONG)).kind == "ended"


async def test_a_tenant_that_is_gone_meanwhile_is_told(storage: Storage) -> None:
    store = await tenant(storage)
    await save(store, PURE)
    async with room(storage) as here:
        await here.realms.workflow("ann", "w")
        workflow = await here.realms.workflow("ann", "w", 1)
        await storage.tenants.delete("ann")
        with pytest.raises(NotFound):
            await here.worker.execute("ann", workflow, {"n": 1})
        await until(lambda: here.worker.holds == 0)


async def test_whoever_asked_may_go_away(storage: Storage) -> None:
    store = await tenant(storage)
    await save(store, EFFECT)
    async with room(storage) as here:
        with anyio.move_on_after(0.0):
            await here.worker.execute("ann", "effect")
        await until(lambda: here.worker.holds == 0)
        rows = (await store.executions.list(ExecutionQuery())).executions
        assert {row.status for row in rows} <= {"succeeded"}, "what was begun came to its end"


async def test_a_worker_that_is_stopped_has_accepted_what_it_began(storage: Storage) -> None:
    store = await tenant(storage)
    await save(store, document(node("go", "manual"), node("c", "code", source=SLOW), name="slow"))
    ids: list[str] = []
    async with room(storage, grace=0.0) as here:

        async def call() -> None:
            ids.append((await here.worker.execute("ann", "slow")).id)

        async with anyio.create_task_group() as group:
            group.start_soon(call)
            await until(lambda: here.worker.holds == 1)
            here.worker.stop()
    row = await store.executions.get(ids[0])
    assert row is not None
    assert (row.status, row.worker) == ("running", None), "it is given back, and goes on elsewhere"
