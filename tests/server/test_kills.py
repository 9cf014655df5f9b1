"""``kill -9`` of real processes while real clients are served: what was acknowledged is there, once, and comes out right."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from statistics import median

import anyio
import pytest
from kill_room import BUSY, Clients, House, audit, house

from orchestrator_server.sql import migrations

pytestmark = pytest.mark.anyio
KILLS = int(os.environ.get("ORCHESTRATOR_KILLS", "20")) // 2  # of the server, and of workers
LEASE = 1.0
LATE = 2.0  # seconds that may pass after a lease until somebody goes on


def check_file(folder: Path) -> None:
    with sqlite3.connect(folder / "data.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()


async def taken_over(place: House, process: subprocess.Popen[bytes]) -> float:
    """The time, by the database's clock, when nothing is held by a dead process any more."""
    while await place.held_by(process):
        await anyio.sleep(0.05)
    return await place.storage.now()


async def test_a_server_that_is_killed_while_it_writes_has_lost_nothing(tmp_path: Path) -> None:
    randomness = random.Random(11)
    waits: list[float] = []
    async with house(tmp_path, lease=LEASE) as place, anyio.create_task_group() as group:
        clients = Clients(place)
        group.start_soon(clients.run)
        process = await place.serve()
        for _ in range(KILLS):
            before = clients.count
            while clients.count < before + 5:
                await anyio.sleep(0.01)
            await anyio.sleep(randomness.uniform(0.0, 0.7))
            process.kill()
            killed = await place.storage.now()
            process.wait()
            check_file(tmp_path)
            held = await place.held_by(process)
            following = await place.serve()
            ready = await place.storage.now()
            if held:
                waits.append(await taken_over(place, process) - max(killed + LEASE, ready))
            process = following
        await audit(place, clients)
        check_file(tmp_path)
    assert clients.count > 10 * KILLS, "it was killed while it worked"
    assert len(waits) > KILLS / 2, "it was killed while it held something"
    assert max(waits) < LATE + BUSY
    assert median(waits) < LATE


async def test_a_worker_that_is_killed_while_it_writes_has_lost_nothing(
    tmp_path: Path, postgresql_server: Callable[..., str]
) -> None:
    randomness = random.Random(12)
    waits: list[float] = []
    url = postgresql_server(f"kills_{os.getpid()}")
    migrations.upgrade(url)
    async with house(tmp_path, url, lease=LEASE) as place, anyio.create_task_group() as group:
        await place.serve("--no-worker")
        workers = [await place.work() for _ in range(3)]
        clients = Clients(place)
        group.start_soon(clients.run)
        for _ in range(KILLS):
            before = clients.count
            while clients.count < before + 5:
                await anyio.sleep(0.01)
            await anyio.sleep(randomness.uniform(0.0, 0.7))
            process = workers.pop(randomness.randrange(len(workers)))
            process.kill()
            killed = await place.storage.now()
            process.wait()
            if await place.held_by(process):
                waits.append(await taken_over(place, process) - killed - LEASE)
            workers.append(await place.work())
        await audit(place, clients)
    assert clients.count > 10 * KILLS, "they were killed while they worked"
    assert len(waits) > KILLS / 2, "they were killed while they held something"
    assert max(waits) < LATE + BUSY
    assert median(waits) < LATE


# --- named boundaries -------------------------------------------------------------------------------------------------

STEPS = ["accept", "claim", "start", "result", "fan-out", "end", "renew", "park", "signal", "slot"]
POINTS = [f"{moment}:{step}" for moment in ("before", "within", "after") for step in STEPS]
LONG = bool(os.environ.get("ORCHESTRATOR_SOAK"))


async def test_a_server_that_dies_at_a_named_boundary_has_lost_nothing(tmp_path: Path) -> None:
    """One database is killed at every point in turn; what is left over by one death is what the next one meets."""
    randomness = random.Random(13)
    async with house(tmp_path, lease=LEASE) as place, anyio.create_task_group() as group:
        clients = Clients(place, pace=0.1)
        group.start_soon(clients.run)
        # In CI each step once, at a moment that depends on it; in the long suite at every moment.
        for point in POINTS if LONG else [POINTS[number * 11 % 30] for number in range(10)]:
            # Ten servers die within seconds, and one execution may be held by five of them: that is another test's.
            process = place.start(
                "serve", "--port", str(place.port), point=point, count=randomness.randint(1, 2), POISON_CLAIMS="1000"
            )
            with anyio.move_on_after(30):
                while process.poll() is None:
                    await anyio.sleep(0.02)
            assert process.poll() == -signal.SIGKILL, f"it did not come to {point}: {place.said()}"
            check_file(tmp_path)
        await place.serve(POISON_CLAIMS="1000")
        await audit(place, clients)


async def test_a_worker_that_dies_at_a_named_boundary_has_lost_nothing(
    tmp_path: Path, postgresql_server: Callable[..., str]
) -> None:
    url = postgresql_server(f"boundaries_{os.getpid()}")
    migrations.upgrade(url)
    chosen = [
        "after:claim",
        "within:start",
        "before:result",
        "within:result",
        "after:end",
        "before:renew",
        "after:park",
    ]
    async with house(tmp_path, url, lease=LEASE) as place, anyio.create_task_group() as group:
        await place.serve("--no-worker")
        clients = Clients(place, pace=0.1)
        group.start_soon(clients.run)
        for point in chosen if LONG else chosen[1:5:2]:
            # They may hold the same one in turn: that it is not quarantined is another matter.
            process = place.start("worker", point=point, POISON_CLAIMS="1000")
            with anyio.move_on_after(30):
                while process.poll() is None:
                    await anyio.sleep(0.02)
            assert process.poll() == -signal.SIGKILL, f"it did not come to {point}: {place.said()}"
        await place.work(POISON_CLAIMS="1000")
        await audit(place, clients)
