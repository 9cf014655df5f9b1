"""Retention: what is over is forgotten in small strokes, and whoever writes meanwhile hardly feels it."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest
from engine_room import KEYS
from million import fill
from sqlalchemy import event

from conftest import emptied
from orchestrator_core import Engine
from orchestrator_server.errors import Unavailable
from orchestrator_server.realms import Realms
from orchestrator_server.records import POISON_CLAIMS, ExecutionQuery, Retention, Tenant
from orchestrator_server.scheduler import Scheduler
from orchestrator_server.sealing import Sealer
from orchestrator_server.sql import SqlStorage, statements
from orchestrator_server.sql import executions as sql_executions
from orchestrator_server.storage import TenantStore
from orchestrator_server.testing import Harness
from orchestrator_server.testing.harness import claim_all, new, step

pytestmark = pytest.mark.anyio

# A hundred thousand executions take some minutes: `nox -s soak` asks for them.
LONG_RUN = os.environ.get("ORCHESTRATOR_SOAK") == "1"
MANY = int(os.environ.get("ORCHESTRATOR_SOAK_FORGOTTEN", "100000")) if LONG_RUN else 1500
WRITERS = 8


@pytest.fixture(params=["sqlite", "postgresql"])
async def storage(
    request: pytest.FixtureRequest, tmp_path: Path, postgresql_url: Callable[[str], str]
) -> AsyncIterator[SqlStorage]:
    """One whose tenant ``old`` has executions that ended long ago, and whose tenant ``new`` has none."""
    url = f"sqlite:///{tmp_path}/a.db" if request.param == "sqlite" else postgresql_url("retention")
    opened = await SqlStorage.open(url)
    await emptied(opened)
    await opened.tenants.create(Tenant("old", retention=Retention(3600.0)))
    await opened.tenants.create(Tenant("new"))
    fill(url, "old", MANY, events=1000, begin=1_600_000_000.0)
    yield opened
    await emptied(opened)
    await opened.aclose()


@attrs.define
class Writers:
    """Append to an execution each, one after the other, and note how long each append took."""

    store: TenantStore
    times: list[float] = attrs.field(factory=list)

    async def run(self) -> None:
        async with anyio.create_task_group() as group:
            for number in range(WRITERS):
                group.start_soon(self._write, f"exe_{number}")

    async def _write(self, name: str) -> None:
        await self.store.executions.create(new(name))
        seq = 1
        while True:
            began = time.perf_counter()
            await self.store.journal.append(self.store.tenant, name, seq, 0, step(seq, value="x" * 500))
            self.times.append(time.perf_counter() - began)
            seq += 2
            await anyio.sleep(0.005)


def part(times: list[float], share: float) -> float:
    """Milliseconds within which this share of them was done."""
    return sorted(times)[int((len(times) - 1) * share)] * 1000


async def test_writers_go_on_while_much_is_forgotten(
    storage: SqlStorage, record_property: Callable[[str, object], None]
) -> None:
    strokes: list[tuple[int, int]] = []  # how many were forgotten, and how much had been written by then
    old = await storage.store("old")
    writers = Writers(await storage.store("new"))
    scheduler = Scheduler(storage, Realms(Engine(), storage, Sealer(KEYS, "k1")))

    def note(*told: object) -> None:
        if str(told[2]).startswith("DELETE FROM executions"):
            strokes.append((told[1].rowcount, len(writers.times)))  # type: ignore[attr-defined]  # a cursor

    event.listen(storage._system.engine, "after_cursor_execute", note)
    kept = (await old.executions.list(ExecutionQuery(statuses=("running", "waiting"), limit=500))).executions
    alone: list[float] = []
    async with anyio.create_task_group() as group:
        group.start_soon(writers.run)
        if LONG_RUN:
            await anyio.sleep(10)
            alone = [*writers.times]
            writers.times.clear()
        began = time.perf_counter()
        forgotten = await scheduler.forget()
        took = time.perf_counter() - began
        group.cancel_scope.cancel()
    page = await old.executions.list(ExecutionQuery(limit=500))
    assert {row.id for row in page.executions} == {row.id for row in kept}, "what has not ended stays"
    assert forgotten == MANY - len(kept) == sum(count for count, _ in strokes)
    assert max(count for count, _ in strokes) <= 500, "a stroke is bounded, whatever there is to forget"
    between = [later - earlier for (_, earlier), (_, later) in pairwise(strokes)]
    assert sum(count > 0 for count in between) >= len(between) * 0.9, "between two strokes others write"
    if LONG_RUN:
        told = (
            f"{storage._system.engine.dialect.name}: {forgotten} forgotten in {took:.0f} s, {len(strokes)} strokes; appends of "
            f"{WRITERS} writers: p99 {part(writers.times, 0.99):.1f} ms, worst {part(writers.times, 1):.1f} ms; "
            f"alone: p99 {part(alone, 0.99):.1f} ms"
        )
        record_property("figures", told)
        print(told)  # noqa: T201 - `pytest -s` shows it
        assert part(writers.times, 0.99) < 100, told


async def test_what_is_revived_this_moment_is_not_forgotten(
    postgresql_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does an idempotency key lead to what is forgotten this moment."""
    url = postgresql_url("retention_race")
    storage = await SqlStorage.open(url)
    store = await Harness(storage).tenant("t")

    def elsewhere(work: Callable[[SqlStorage], Awaitable[Any]]) -> Any:
        """What another process does."""

        async def run() -> Any:
            other = await SqlStorage.open(url)
            try:
                return await work(other)
            finally:
                await other.aclose()

        return asyncio.run(run())

    try:
        await store.executions.create(attrs.evolve(new("exe_a"), idempotency_key="k"))
        for _ in range(POISON_CLAIMS + 1):
            await claim_all(Harness(storage), 0.0)
        real = sql_executions.forget
        revived: list[bool] = []

        def meanwhile(connection: Any, tenant: str, ids: Any) -> int:
            # Whoever comes first, the other one sees it: here it waits for the lock, or has been.
            revival = threading.Thread(
                target=lambda: revived.append(elsewhere(lambda other: other.queue.revive("t", "exe_a")))
            )
            revival.start()
            revival.join(1.0)
            return real(connection, tenant, ids)

        with monkeypatch.context() as patched:
            patched.setattr(sql_executions, "forget", meanwhile)
            forgotten = await store.executions.prune(await storage.now() + 1.0)
        with anyio.fail_after(10):
            while not revived:
                await anyio.sleep(0.01)
        row = await store.executions.get("exe_a")
        assert revived == [row is not None]
        assert forgotten == (row is None)

        await store.executions.create(attrs.evolve(new("exe_b"), idempotency_key="j"))
        known = statements._known

        def gone(*arguments: Any) -> Any:
            async def delete(other: SqlStorage) -> None:
                await (await other.store("t")).executions.delete("exe_b")

            elsewhere(delete)
            return known(*arguments)

        monkeypatch.setattr(statements, "_known", gone)
        with pytest.raises(Unavailable, match="about to be forgotten: ask again"):
            await store.executions.create(attrs.evolve(new("exe_c"), idempotency_key="j"))
        monkeypatch.undo()
        assert (await store.executions.create(attrs.evolve(new("exe_c"), idempotency_key="j"))).new
    finally:
        await emptied(storage)
        await storage.aclose()
