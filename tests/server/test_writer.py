"""The writer, the threads, and what happens when a database does not do what it should."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import psycopg
import pytest
from sqlalchemy import event
from sqlalchemy.engine import make_url

from conftest import emptied
from orchestrator_core.results import node_io_to_json
from orchestrator_server.errors import Conflict, Exists, NotFound, Unavailable
from orchestrator_server.records import NewExecution, Tenant, Variable
from orchestrator_server.sql import SqlStorage, many
from orchestrator_server.sql.hop import Threads
from orchestrator_server.sql.writer import SqliteLane
from orchestrator_server.testing import Harness
from orchestrator_server.testing.harness import ended, new, record, start, step

pytestmark = pytest.mark.anyio
Url = Callable[[str], str]


@pytest.fixture
async def storage(tmp_path: Path):
    made = await SqlStorage.open(f"sqlite:///{tmp_path}/a.db", patience=0.5)
    yield made
    await made.aclose()


async def test_appends_that_come_together_share_a_commit(storage: SqlStorage, monkeypatch: pytest.MonkeyPatch):
    store = await Harness(storage).tenant()
    for number in range(32):
        await store.executions.create(new(f"exe_{number}"))
    commits: list[int] = []
    real = many.store

    def storing(cursor: sqlite3.Cursor, rows: Sequence[Any]) -> None:
        commits.append(len(rows))
        real(cursor, rows)

    monkeypatch.setattr(many, "store", storing)

    async def run(name: str) -> None:
        for seq in range(1, 21, 2):
            await store.journal.append("t", name, seq, 0, step(seq))

    async with anyio.create_task_group() as group:
        for number in range(32):
            group.start_soon(run, f"exe_{number}")
    assert sum(commits) == 320
    assert len(commits) < 320 / 4, "320 appends by 32 executions take a few commits"


async def test_a_group_of_any_size_that_fits_is_written_at_once(
    storage: SqlStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is put by for the case that one of them does not fit, and no row of the statements' own is in the way."""

    again: list[str] = []
    real = SqliteLane._with_care

    def with_care(self: SqliteLane, connection: Any, group: Any, *, together: bool) -> Any:
        again.extend("with care" for job in group if job.plain)
        return real(self, connection, group, together=together)

    monkeypatch.setattr(SqliteLane, "_with_care", with_care)
    store = await Harness(storage).tenant()
    for size in (1, 2, 3, 5, 33, 70):
        names = [f"exe_{size}_{number}" for number in range(size)]
        await asyncio.gather(*(store.executions.create(new(name)) for name in names))
        await asyncio.gather(*(store.journal.append("t", name, 1, 0, step(1)) for name in names))
        await asyncio.gather(*(store.journal.append("t", name, 3, 0, [ended()]) for name in names))
        for name in names:
            row = await store.executions.get(name)
            assert row is not None
            assert (row.status, row.seq) == ("succeeded", 4)
    assert not again


async def test_an_append_is_acknowledged_after_its_commit(storage: SqlStorage, tmp_path: Path):
    store = await Harness(storage).tenant()
    await store.executions.create(new("exe_a"))
    with sqlite3.connect(tmp_path / "a.db", check_same_thread=False) as other:
        for seq in range(1, 41, 2):
            await store.journal.append("t", "exe_a", seq, 0, step(seq))
            assert other.execute("SELECT sum(count) FROM journal").fetchone() == (seq + 2,)
    other.close()


async def test_every_connection_syncs_fully(storage: SqlStorage):
    await Harness(storage).tenant()
    pragmas = {"synchronous": 2, "journal_mode": "wal", "foreign_keys": 1}

    def read(connection: Any) -> dict[str, Any]:
        return {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in pragmas}

    from orchestrator_server.sql.database import SYSTEM  # noqa: PLC0415 - only here

    assert await storage._system.read(SYSTEM, read) == pragmas
    assert await storage._system.write(SYSTEM, read) == pragmas, "the writer's connection, too"


async def test_the_log_is_copied_beside_the_writing_and_begins_anew(storage: SqlStorage, tmp_path: Path):
    """Else it would grow as long as somebody writes; SQLite alone would copy it within a commit, and all would wait for that."""
    store = await Harness(storage).tenant()
    await store.executions.create(new("exe_a"))
    largest = 0
    for number in range(400):
        at = 2 * number + 1
        await store.journal.append("t", "exe_a", at, 0, step(at, value="x" * 20_000))
        largest = max(largest, (tmp_path / "a.db-wal").stat().st_size)
    assert largest < 6_000_000 < 400 * 20_000, "some fifty commits, and those that come while it is copied"
    assert len(await store.journal.read("t", "exe_a")) == 801


async def test_what_is_wrong_with_one_takes_out_that_one(storage: SqlStorage):
    store = await Harness(storage).tenant()
    await store.executions.create(new("exe_a"))
    answers: dict[str, Any] = {}

    async def note(name: str, call: Any) -> None:
        try:
            await call
            answers[name] = "done"
        except Exception as error:  # noqa: BLE001 - noted
            answers[name] = type(error)

    async with anyio.create_task_group() as group:
        for name, call in {
            "append": store.journal.append("t", "exe_a", 1, 0, step(1)),
            "conflict": store.journal.append("t", "exe_b", 1, 0, step(1)),
            "exists": store.executions.create(NewExecution(start("exe_a", payload="other"))),
            "create": store.executions.create(new("exe_c")),
            "not found": store.schedules.fire("x", 1.0, None, next_at=None),
            "variable": store.variables.put(Variable("v", 1)),
            "child": store.journal.append("t", "exe_child", 0, 0, [start("exe_child")]),
        }.items():
            group.start_soon(note, name, call)
    assert answers == {
        "append": "done",
        "conflict": Conflict,
        "exists": Exists,
        "create": "done",
        "not found": NotFound,
        "variable": "done",
        "child": "done",
    }
    for name, count in (("exe_a", 3), ("exe_c", 1), ("exe_child", 1)):
        assert len(await store.journal.read("t", name)) == count


async def test_a_lock_that_passes_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("orchestrator_server.sql.database._BUSY", 0.05)
    storage = await SqlStorage.open(f"sqlite:///{tmp_path}/a.db", patience=5.0)
    store = await Harness(storage).tenant()
    await store.executions.create(new("exe_a"))
    with sqlite3.connect(tmp_path / "a.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        async with anyio.create_task_group() as group:
            group.start_soon(store.journal.append, "t", "exe_a", 1, 0, step(1))
            await anyio.sleep(0.3)
            other.execute("ROLLBACK")
    other.close()
    assert len(await store.journal.read("t", "exe_a")) == 3
    await storage.aclose()


async def test_a_lock_that_stays_is_unavailable_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("orchestrator_server.sql.database._BUSY", 0.05)
    storage = await SqlStorage.open(f"sqlite:///{tmp_path}/a.db", patience=0.2)
    store = await Harness(storage).tenant()
    await store.executions.create(new("exe_a"))
    with sqlite3.connect(tmp_path / "a.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="locked"):
            await store.journal.append("t", "exe_a", 1, 0, step(1))
        assert len(await store.journal.read("t", "exe_a")) == 1, "reading goes on"
        other.execute("ROLLBACK")
    other.close()
    await store.journal.append("t", "exe_a", 1, 0, step(1))
    await storage.aclose()


async def test_a_full_disk_is_unavailable_and_passes(storage: SqlStorage, tmp_path: Path):
    store = await Harness(storage).tenant()
    await store.executions.create(new("exe_a"))
    limits: list[int] = []

    def small(connection: sqlite3.Connection, *_: Any) -> None:
        limits.append(connection.execute("PRAGMA max_page_count=1").fetchone()[0])

    event.listen(storage._system.engine, "connect", small)
    storage._system.engine.dispose()
    storage._system._lanes[0].disconnect()
    seq, failed = 1, None
    for _ in range(40):
        try:
            await store.journal.append("t", "exe_a", seq, 0, step(seq, value="x" * 100_000))
        except Unavailable as error:
            failed = error
            break
        seq += 2
    assert "full" in str(failed)
    assert len(await store.journal.read("t", "exe_a")) == seq, "what was acknowledged is there"
    event.remove(storage._system.engine, "connect", small)
    storage._system.engine.dispose()
    await store.journal.append("t", "exe_a", seq, 0, step(seq, value="x" * 100_000))
    assert len(await store.journal.read("t", "exe_a")) == seq + 2
    with sqlite3.connect(tmp_path / "a.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


async def test_a_reply_that_was_lost_is_no_conflict(storage: SqlStorage, monkeypatch: pytest.MonkeyPatch):
    """Committed, but the connection broke before anybody was told: the group is tried again, and finds itself."""
    store = await Harness(storage).tenant()
    await store.executions.create(new("exe_a"))
    lane = storage._system._lanes[0]
    commit, calls = lane.commit, []

    def lossy(group: Any) -> Any:
        answers = list(commit(group))
        calls.append(group)
        if len(calls) == 1:
            raise sqlite3.OperationalError("database is locked")
        return answers

    monkeypatch.setattr(lane, "commit", lossy)
    await store.journal.append("t", "exe_a", 1, 0, [*step(1), ended()], nodes=[record()])
    assert len(calls) == 2
    assert len(await store.journal.read("t", "exe_a")) == 4
    outcome = await store.executions.outcome("exe_a")
    assert outcome is not None
    assert outcome.nodes == (node_io_to_json(record()),)


async def test_a_caller_that_was_cancelled_harms_nobody(storage: SqlStorage):
    store = await Harness(storage).tenant()
    await store.executions.create(new("exe_a"))
    task = asyncio.create_task(store.journal.append("t", "exe_a", 1, 0, step(1)))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await store.journal.append("t", "exe_a", 1, 0, step(1))
    assert len(await store.journal.read("t", "exe_a")) == 3


async def test_closing_commits_what_was_handed_in_and_ends_every_thread(tmp_path: Path):
    before = set(threading.enumerate())
    storage = await SqlStorage.open(f"sqlite:///{tmp_path}/a.db", isolation="database")
    stores = [await Harness(storage).tenant(name) for name in ("a", "b")]
    for store in stores:
        await store.executions.create(new("exe_a"))
    tasks = [asyncio.create_task(store.journal.append(store.tenant, "exe_a", 1, 0, step(1))) for store in stores]
    await asyncio.sleep(0)
    await storage.aclose()
    await asyncio.gather(*tasks)
    left = {thread for thread in set(threading.enumerate()) - before if thread.name.startswith("orchestrator")}
    for thread in left:
        thread.join(1.0)
    assert not any(thread.is_alive() for thread in left)
    with pytest.raises((Unavailable, NotFound)):
        await stores[0].variables.put(Variable("a", 1))
    with pytest.raises((Unavailable, NotFound)):
        await stores[0].journal.append("a", "exe_a", 3, 0, step(1))
    gc.collect()


async def test_an_idle_writer_ends_and_comes_back(storage: SqlStorage, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("orchestrator_server.sql.writer._IDLE", 0.02)
    store = await Harness(storage).tenant()
    for number in range(6):
        await store.executions.create(new(f"exe_{number}"))
        await anyio.sleep(0.06 if number % 2 else 0.02)
    lane = storage._system._lanes[0]
    await anyio.sleep(0.1)
    assert lane._thread is None
    assert len((await store.executions.list(_everything())).executions) == 6


def _everything() -> Any:
    from orchestrator_server.testing.executions import EVERYTHING  # noqa: PLC0415 - only here

    return EVERYTHING


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_storages_work_on_both_event_loops(backend: str, tmp_path: Path):
    async def main() -> None:
        storage = await SqlStorage.open(f"sqlite:///{tmp_path}/a.db")
        store = await Harness(storage).tenant()
        async with anyio.create_task_group() as group:
            for number in range(10):
                group.start_soon(store.executions.create, new(f"exe_{number}"))
        with pytest.raises(Conflict):
            await store.journal.append("t", "exe_1", 7, 0, step(1))
        assert not await storage.queue.wait_for_work(0.01)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await store.variables.put(Variable("a", 1))
        assert len(await storage.queue.claim("w", 100, 30.0)) == 10
        await storage.aclose()

    anyio.run(main, backend=backend)


async def test_threads_answer_with_errors_and_values_and_grow_and_shrink():
    threads = Threads(3, name="orchestrator-test", idle=0.05)
    assert await threads.run(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0)
    began = time.perf_counter()
    await asyncio.gather(*(threads.run(lambda: time.sleep(1.0)) for _ in range(3)))
    assert time.perf_counter() - began < 1.9, "three at a time"
    await asyncio.sleep(0.3)
    assert not threads._running
    assert await threads.run(lambda: 8) == 8
    threads.close()
    with pytest.raises(Unavailable):
        await threads.run(lambda: 9)


async def test_groups_of_postgresql_do_not_mix_tenants(postgresql_url: Url):
    storage = await emptied(await SqlStorage.open(postgresql_url("contract_shared")))
    try:
        stores = [await Harness(storage).tenant(name) for name in ("a", "b", "c")]
        for store in stores:
            for number in range(8):
                await store.executions.create(new(f"exe_{number}"))
        # One lane for all, so that they meet.
        storage._system._lanes.clear()
        lane = storage._system._lane("a")
        storage._system._lanes.update(dict.fromkeys(range(8), lane))
        groups: list[set[str]] = []
        commit = lane.commit

        def noted(group: Any) -> Any:
            groups.append({job.scope.tenant for job in group})
            return commit(group)

        lane.commit = noted
        async with anyio.create_task_group() as group:
            for number in range(8):
                for store in stores:
                    group.start_soon(store.journal.append, store.tenant, f"exe_{number}", 1, 0, step(1))
        assert all(len(tenants) == 1 for tenants in groups)
        assert {tenant for tenants in groups for tenant in tenants} == {"a", "b", "c"}
        for store in stores:
            assert len(await store.journal.read(store.tenant, "exe_7")) == 3
    finally:
        await storage.aclose()


async def test_appends_survive_the_loss_of_every_connection(postgresql_url: Url):
    """As when the database is started anew: appends wait, everything else is told, and it comes back."""
    url = postgresql_url("contract_shared")
    storage = await emptied(await SqlStorage.open(url))
    address = make_url(url).set(drivername="postgresql", username="postgres", password=None)
    try:
        store = await Harness(storage).tenant("t")
        names = [f"exe_{number}" for number in range(8)]
        for name in names:
            await store.executions.create(new(name))
        stop = False

        async def run(name: str) -> int:
            seq = 1
            while not stop:
                await store.journal.append("t", name, seq, 0, step(seq))
                seq += 2
            return seq

        tasks = [asyncio.create_task(run(name)) for name in names]
        with psycopg.connect(address.render_as_string(), autocommit=True) as other:
            for _ in range(5):
                await asyncio.sleep(0.1)
                other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
        await asyncio.sleep(0.1)
        stop = True
        counts = await asyncio.gather(*tasks)
        for name, count in zip(names, counts, strict=True):
            assert len(await store.journal.read("t", name)) == count
    finally:
        await storage.aclose()


async def test_work_made_by_another_process_wakes_who_waits(postgresql_url: Url):
    url = postgresql_url("contract_shared")
    here, there = await emptied(await SqlStorage.open(url)), await SqlStorage.open(url)
    try:
        await here.tenants.create(Tenant("t"))
        store = await here.store("t")
        hints: list[bool] = []
        await there.queue.wait_for_work(0.3)  # by now it listens
        async with anyio.create_task_group() as group:

            async def wait() -> None:
                began = time.perf_counter()
                hints.append(await there.queue.wait_for_work(10.0) and time.perf_counter() - began < 5.0)

            group.start_soon(wait)
            await anyio.sleep(0.1)
            await store.executions.create(new("exe_a"))
        assert hints == [True]
        assert len(await there.queue.claim("w", 1, 30.0)) == 1
    finally:
        await here.aclose()
        await there.aclose()


async def test_who_listens_ends_at_once(postgresql_url: Url):
    storage = await SqlStorage.open(postgresql_url("bell_ends"))
    async with anyio.create_task_group() as group:
        group.start_soon(storage.queue.wait_for_work, 60.0)
        await anyio.sleep(0.3)
        group.cancel_scope.cancel()
    began = time.monotonic()
    await storage.aclose()
    assert time.monotonic() - began < 10, "it does not wait for a bell that nobody rings"


async def test_two_processes_share_a_queue(postgresql_url: Url):
    """Claims by several storages at once: each execution goes to one."""
    url = postgresql_url("contract_shared")
    storages = [await emptied(await SqlStorage.open(url)) for _ in range(3)]
    try:
        store = await Harness(storages[0]).tenant("t")
        for number in range(60):
            await store.executions.create(new(f"exe_{number}"))
        taken: list[str] = []

        async def work(storage: SqlStorage, worker: str) -> None:
            while claims := await storage.queue.claim(worker, 4, 30.0):
                taken.extend(claim.execution_id for claim in claims)

        async with anyio.create_task_group() as group:
            for number, storage in enumerate(storages):
                group.start_soon(work, storage, f"w{number}")
        while claims := await storages[0].queue.claim("last", 10, 30.0):
            taken.extend(claim.execution_id for claim in claims)
        assert len(taken) == len(set(taken)) == 60
    finally:
        for storage in storages:
            await storage.aclose()
