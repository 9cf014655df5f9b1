"""What SQLite keeps is nobody else's to read, from its first byte on."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from orchestrator_server.records import Tenant
from orchestrator_server.sql import SqlStorage, migrations
from orchestrator_server.testing.harness import new

pytestmark = pytest.mark.anyio


def modes(folder: Path) -> dict[str, str]:
    """The rights of everything below a folder."""
    return {str(path.relative_to(folder)): stat.filemode(path.stat().st_mode) for path in sorted(folder.rglob("*"))}


@pytest.fixture(autouse=True)
def open_umask():
    """The most careless of operators."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.parametrize("isolation", ["shared", "database"])
async def test_files_are_private_under_any_umask(tmp_path: Path, isolation: str):
    storage = await SqlStorage.open(f"sqlite:///{tmp_path}/a.db", isolation=isolation)
    await storage.tenants.create(Tenant("t"))
    store = await storage.store("t")
    await store.executions.create(new("exe_a"))
    found = modes(tmp_path)
    assert {"a.db", "a.db-wal", "a.db-shm"} <= found.keys()
    assert len(found) == (7 if isolation == "database" else 3)
    for name, mode in found.items():
        assert mode == ("drwx------" if name.endswith(".tenants") else "-rw-------"), name
    await storage.aclose()


def test_there_is_no_moment_at_which_others_could_open_them(tmp_path: Path):
    program = "import sys; from orchestrator_server.sql import migrations; migrations.upgrade(sys.argv[1])"
    seen: set[tuple[str, str]] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            for entry in os.scandir(tmp_path):
                try:
                    seen.add((entry.name, stat.filemode(entry.stat().st_mode)))
                except FileNotFoundError:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    for number in range(3):
        subprocess.run([sys.executable, "-c", program, f"sqlite:///{tmp_path}/{number}.db"], check=True)
    over.set()
    watcher.join()
    assert {name for name, _ in seen} >= {f"{number}.db{suffix}" for number in range(3) for suffix in ("", "-wal")}
    assert {mode for _, mode in seen} == {"-rw-------"}


def test_the_rights_of_a_file_that_is_there_are_the_operators(tmp_path: Path):
    file = tmp_path / "a.db"
    file.touch()
    file.chmod(0o640)
    migrations.upgrade(f"sqlite:///{file}")
    assert stat.filemode(file.stat().st_mode) == "-rw-r-----"
