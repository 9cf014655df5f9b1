"""Every append that was acknowledged is there after ``kill -9``, and once; whole servers are killed in `test_kills.py`."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator_server.sql import SqlStorage
from orchestrator_server.testing.harness import EVERYTHING, start, step

pytestmark = pytest.mark.anyio
ROUNDS = int(os.environ.get("ORCHESTRATOR_KILLS", "20")) // 4


def killed_in_the_midst(url: str, turn: int, randomness: random.Random) -> dict[str, int]:
    """Let it write, kill it, and return how many events of each execution it had acknowledged."""
    command = [sys.executable, str(Path(__file__).with_name("crash_writer.py")), url, str(turn)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first, process.stderr and process.stderr.read().decode()
        time.sleep(randomness.uniform(0.0, 0.15))
        process.kill()
        lines = [first, *process.stdout.readlines()]
    acknowledged: dict[str, int] = {}
    for line in lines:
        if line.endswith(b"\n"):
            name, count = line.decode().split()
            acknowledged[name] = int(count)
    return acknowledged


async def check(storage: SqlStorage, acknowledged: dict[str, int]) -> None:
    store = await storage.store("t")
    for name, count in acknowledged.items():
        events = list(await store.journal.read("t", name))
        row = await store.executions.get(name)
        assert row is not None
        assert row.seq == len(events) >= count, "nothing that was acknowledged is lost"
        assert len(events) <= count + 2, "nothing is there twice, nor is there half of an append"
        expected = [start(name)]
        for seq in range(1, len(events), 2):
            expected += step(seq, value=f"{name}{seq}" * (30_000 if seq % 20 == 9 else 1))
        assert events == expected
    listed = (await store.executions.list(EVERYTHING)).executions
    assert {row.id for row in listed} >= acknowledged.keys()


async def test_a_killed_writer_has_lost_nothing_on_sqlite(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/a.db"
    randomness = random.Random(7)
    total = 0
    for turn in range(ROUNDS):
        acknowledged = killed_in_the_midst(url, turn, randomness)
        total += sum(acknowledged.values())
        storage = await SqlStorage.open(url)
        await check(storage, acknowledged)
        await storage.aclose()
        with sqlite3.connect(tmp_path / "a.db") as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        connection.close()
    assert total > ROUNDS * 20, "it was killed while it wrote"


async def test_a_killed_writer_has_lost_nothing_on_postgresql(postgresql_url: Callable[[str], str]):
    url = postgresql_url("killed")
    randomness = random.Random(8)
    for turn in range(max(2, ROUNDS // 5)):
        acknowledged = killed_in_the_midst(url, turn, randomness)
        storage = await SqlStorage.open(url)
        await check(storage, acknowledged)
        await storage.aclose()
