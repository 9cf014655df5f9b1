"""Each call that a worker makes of its storage fails once: executions go on all the same, and come to the same end."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from engine_room import Room, document, ended, node, room, save, tenant, until

from orchestrator_server.errors import Unavailable
from orchestrator_server.handles import Handle
from orchestrator_server.memory import MemoryStorage
from orchestrator_server.records import ExecutionQuery, Message
from orchestrator_server.storage import TenantStore

pytestmark = pytest.mark.anyio
PARTS = ("workflows", "executions", "journal", "inbox", "secrets", "variables")


class Faults:
    """What stands before a storage. It counts and fails the calls of tasks other than the test's own."""

    def __init__(self, storage: MemoryStorage, store: TenantStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self._fail = 0
        self._lost = False
        self._test: int | None = None
        for part in (storage.queue, storage.tenants, *(getattr(store, name) for name in PARTS)):
            for name, real in inspect.getmembers(type(part), inspect.iscoroutinefunction):
                monkeypatch.setattr(type(part), name, self._before(f"{type(part).__name__}.{name}", real))

    def _before(self, name: str, real: Any) -> Any:
        async def method(*arguments: Any, **more: Any) -> Any:
            if self._test in {None, anyio.get_current_task().id} or name == "Queue.wait_for_work":
                return await real(*arguments, **more)
            self.calls.append(name)
            fails = len(self.calls) == self._fail
            result = await real(*arguments, **more) if self._lost or not fails else None
            if fails:
                raise Unavailable("the database does not answer")
            return result

        return method

    def begin(self, fail: int, *, lost: bool) -> None:
        """Count anew. Call number ``fail`` fails; if ``lost``, what it was to do is done."""
        self.calls, self._fail, self._lost = [], fail, lost
        self._test = anyio.get_current_task().id

    def end(self) -> None:
        self._test = None


async def execute(here: Room, number: int) -> Handle:
    """Ask until it is accepted."""
    while True:
        try:
            return await here.worker.execute("ann", "outer", number, idempotency_key=str(number))
        except Unavailable:
            await anyio.sleep(0.01)


async def family(store: TenantStore, root: str) -> Sequence[str]:
    """A child and its child, once both are there."""
    rows = {row.parent: row.id for row in (await store.executions.list(ExecutionQuery(limit=10))).executions}
    child = rows.get(root)
    grandchild = rows.get(child) if child is not None else None
    return (child, grandchild) if child is not None and grandchild is not None else ()


async def come_to_their_ends(faults: Faults, fail: int, *, lost: bool) -> None:
    """One execution whose child's child is answered, one that is cancelled."""
    storage = MemoryStorage()
    store = await tenant(storage)
    await save(store, document(node("go", "manual"), node("ask", "wait", signal="yes"), node("s", "nap"), name="inner"))
    await save(store, document(node("go", "manual"), node("call", "workflow", workflow="inner"), name="middle"))
    call = node("call", "workflow", workflow="middle")
    await save(store, document(node("go", "manual"), node("n", "nap"), call, name="outer"))
    faults.begin(fail, lost=lost)
    try:
        async with room(storage, poll=0.05, lease=0.6) as here:
            answered, cancelled = [await execute(here, number) for number in range(2)]
            families = []
            for handle in (answered, cancelled):
                await until(lambda: family(store, handle.id))  # noqa: B023 - it is called here
                families.append(await family(store, handle.id))
            await store.inbox.post(families[0][1], Message("s", "signal", "ask", "yes", "said"))
            await store.inbox.post(cancelled.id, Message("c", "cancel"))
            for root, others, status in ((answered, families[0], "succeeded"), (cancelled, families[1], "cancelled")):
                for name in (root.id, *others):
                    assert await ended(store, name) == status
            outcome = await store.executions.outcome(answered.id)
            assert outcome is not None
            assert outcome.output == "said"
            await until(lambda: here.worker.holds == 0)
    finally:
        faults.end()


@pytest.mark.parametrize("lost", [False, True], ids=["not done", "reply lost"])
async def test_a_call_that_fails_once_changes_nothing(monkeypatch: pytest.MonkeyPatch, lost: bool) -> None:
    monkeypatch.setattr("orchestrator_server.worker._LONGEST", 0.05)
    storage = MemoryStorage()
    faults = Faults(storage, await tenant(storage), monkeypatch)
    await come_to_their_ends(faults, 0, lost=lost)
    assert len({*faults.calls}) > 6, faults.calls
    for number in range(1, len(faults.calls) + 1):
        try:
            await come_to_their_ends(faults, number, lost=lost)
        except BaseException as error:
            error.add_note(f"call {number} failed: {faults.calls[number - 1 : number]}")
            raise
